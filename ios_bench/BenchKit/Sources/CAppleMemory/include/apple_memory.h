#pragma once

/// What the system counts against this process's bound of memory, in bytes; -1 if unknown. In C, because the
/// kernel's name for a process is a global variable there, which Swift 6 lets nobody read.
long long blocktime_footprint_bytes(void);

/// The most of it since the process began; -1 if unknown.
long long blocktime_footprint_peak_bytes(void);
