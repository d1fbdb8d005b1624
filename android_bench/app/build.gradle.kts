import java.security.MessageDigest

plugins {
    alias(libs.plugins.android.application)
}

val backends = providers.gradleProperty("blocktime.backends").get()
val executorch =
    when (backends) {
        "xnnpack" -> libs.executorch.xnnpack
        "vulkan" -> libs.executorch.vulkan
        "qnn" -> libs.executorch.qnn
        else -> throw GradleException("blocktime.backends is '$backends'; it can be xnnpack, vulkan or qnn")
    }

/** Changes with anything that decides what the agent measures, and how. */
fun digestOfSources(): String {
    val sources =
        rootProject.files(
            "core/src/main",
            "executorch/src/main",
            "app/src/main",
            "gradle/libs.versions.toml",
            "../native/src/affinity.cpp",
            "../native/src/affinity.h",
            "../native/src/affinity_jni.cpp",
        )
    val digest = MessageDigest.getInstance("SHA-256")
    for (file in sources.asFileTree.sortedBy { it.relativeTo(rootDir).invariantSeparatorsPath }) {
        digest.update("${file.relativeTo(rootDir).invariantSeparatorsPath}\u0000".toByteArray())
        digest.update(file.readBytes())
    }
    return digest.digest().joinToString("") { "%02x".format(it) }.take(16)
}

fun number(version: Provider<String>) = version.get().toInt()

android {
    namespace = "dev.blocktime.bench"
    compileSdk = number(libs.versions.compileSdk)

    defaultConfig {
        applicationId = "dev.blocktime.bench"
        minSdk = number(libs.versions.minSdk)
        targetSdk = number(libs.versions.targetSdk)
        versionCode = number(libs.versions.appCode)
        versionName = libs.versions.appName.get()
        buildConfigField("String", "AGENT_VERSION", "\"${libs.versions.appName.get()}+${digestOfSources()}\"")
        buildConfigField("String", "EXECUTORCH_VERSION", "\"${executorch.get().version}-$backends\"")
    }

    // Device farms want an APK of tests beside the app's: `gradlew :app:assembleReleaseAndroidTest` makes one, which names
    // the app's own instrumentation. A debuggable build is not measured.
    defaultConfig.testInstrumentationRunner = "dev.blocktime.bench.BundleInstrumentation"
    testBuildType = "release"

    // Pins threads to cores. Only for the processors that ExecuTorch has libraries for.
    externalNativeBuild.cmake.path = file("src/main/cpp/CMakeLists.txt")
    defaultConfig.ndk.abiFilters += listOf("arm64-v8a", "x86_64")

    buildFeatures {
        buildConfig = true
    }

    // The keys of your own keystore, in ~/.gradle/gradle.properties (docs/android.md). Without them the release build
    // is not signed, and no phone installs it.
    val keystore = providers.gradleProperty("blocktime.keystore").orNull
    if (keystore != null) {
        signingConfigs.create("release") {
            storeFile = file(keystore)
            storePassword = providers.gradleProperty("blocktime.keystore.password").get()
            keyAlias = providers.gradleProperty("blocktime.key.alias").get()
            // A PKCS12 keystore, keytool's format, has one password.
            keyPassword =
                providers
                    .gradleProperty("blocktime.key.password")
                    .orElse(providers.gradleProperty("blocktime.keystore.password"))
                    .get()
        }
    }

    buildTypes {
        release {
            isMinifyEnabled = false
            signingConfig = signingConfigs.findByName("release")
        }
    }

    // A Snapdragon's NPU loads its part of the QNN backend from a folder, not from inside of the APK.
    packaging.jniLibs.useLegacyPackaging = backends == "qnn"

    compileOptions {
        sourceCompatibility = JavaVersion.VERSION_17
        targetCompatibility = JavaVersion.VERSION_17
    }
}

dependencies {
    implementation(project(":core"))
    implementation(project(":executorch"))
    runtimeOnly(executorch)
}
