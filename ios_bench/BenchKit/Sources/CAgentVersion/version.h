// Written by tools/build_swift.sh: BLOCKTIME_AGENT_VERSION.
#include "../../../../build/swift/agent_version.h"
