#include "apple_memory.h"

#include <mach/mach.h>

static kern_return_t read_memory(task_vm_info_data_t *info) {
  mach_msg_type_number_t count = TASK_VM_INFO_COUNT;
  return task_info(mach_task_self(), TASK_VM_INFO, (task_info_t)info, &count);
}

long long blocktime_footprint_bytes(void) {
  task_vm_info_data_t info;
  return read_memory(&info) == KERN_SUCCESS ? (long long)info.phys_footprint : -1;
}

long long blocktime_footprint_peak_bytes(void) {
  task_vm_info_data_t info;
  return read_memory(&info) == KERN_SUCCESS ? (long long)info.ledger_phys_footprint_peak : -1;
}
