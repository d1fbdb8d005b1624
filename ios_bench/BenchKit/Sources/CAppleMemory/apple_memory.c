#include "apple_memory.h"

#include <mach/mach.h>

long long blocktime_footprint_bytes(void) {
  task_vm_info_data_t info;
  mach_msg_type_number_t count = TASK_VM_INFO_COUNT;
  if (task_info(mach_task_self(), TASK_VM_INFO, (task_info_t)&info, &count) != KERN_SUCCESS) return -1;
  return (long long)info.phys_footprint;
}
