plugins {
    alias(libs.plugins.android.library)
}

fun number(version: Provider<String>) = version.get().toInt()

android {
    namespace = "dev.blocktime.executorch"
    compileSdk = number(libs.versions.compileSdk)

    defaultConfig {
        minSdk = number(libs.versions.minSdk)
    }

    compileOptions {
        sourceCompatibility = JavaVersion.VERSION_17
        targetCompatibility = JavaVersion.VERSION_17
    }
}

dependencies {
    implementation(project(":core"))
    // The app decides which build of the library it carries; all have the same classes.
    compileOnly(libs.executorch.xnnpack)
}
