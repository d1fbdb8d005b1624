// swift-format-ignore-file
// What the app uses of os; for type checks on Linux.
public func os_proc_available_memory() -> Int { 0 }
