package android.os;

public class Process {
    /** API 29. */
    public static final int ROOT_UID = 0;

    /** API 29. */
    public static final int SHELL_UID = 2000;
}
