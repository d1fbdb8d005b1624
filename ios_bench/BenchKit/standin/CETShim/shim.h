// ExecuTorch of the Python wheel behind plain C, which tools/build_native.sh builds.
#include "../../../../native/include/etshim.h"
