package android.app;

import java.util.List;

public class ActivityManager {
    /** API 30. */
    public native List<ApplicationExitInfo> getHistoricalProcessExitReasons(
            String packageName, int pid, int maxNum);
}
