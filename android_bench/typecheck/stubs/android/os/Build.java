package android.os;

public class Build {
    /** API 31. */
    public static final String SOC_MANUFACTURER = System.getProperty("SOC_MANUFACTURER");

    /** API 31. */
    public static final String SOC_MODEL = System.getProperty("SOC_MODEL");

    public static class VERSION_CODES {
        public static final int R = 30;
        public static final int S = 31;
        public static final int TIRAMISU = 33;
        public static final int UPSIDE_DOWN_CAKE = 34;
    }
}
