// swift-format-ignore-file
// What the app uses of Darwin that Linux lacks; for type checks on Linux. Globals are mutable, as C's are.
public typealias natural_t = UInt32
public typealias integer_t = Int32
public typealias kern_return_t = Int32
public typealias task_name_t = UInt32
public typealias task_flavor_t = UInt32
public typealias mach_msg_type_number_t = UInt32

public var mach_task_self_: task_name_t = 0
public let TASK_VM_INFO: Int32 = 22
public let KERN_SUCCESS: Int32 = 0

public struct task_vm_info_data_t {
  public var resident_size: UInt64 = 0
  public var phys_footprint: UInt64 = 0

  public init() {}
}

public func task_info(
  _ target: task_name_t, _ flavor: task_flavor_t, _ info: UnsafeMutablePointer<integer_t>,
  _ count: UnsafeMutablePointer<mach_msg_type_number_t>
) -> kern_return_t { KERN_SUCCESS }

public func sysctlbyname(
  _ name: UnsafePointer<CChar>, _ old: UnsafeMutableRawPointer?, _ oldSize: UnsafeMutablePointer<Int>?,
  _ new: UnsafeMutableRawPointer?, _ newSize: Int
) -> Int32 { -1 }
