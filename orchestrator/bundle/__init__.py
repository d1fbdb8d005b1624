"""A measurement that an agent makes alone: the file that it runs, and the file that it leaves."""
