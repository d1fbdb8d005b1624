#!/usr/bin/env bash
# Checks the Android app where there is no Android SDK, into build/android:
#   - type check: core, ExecuTorch's runtime and the app against android.jar (API 23 and the newer members of
#     android_bench/typecheck) and the classes of ExecuTorch's Android library
#   - packaging: resources, manifest, the app's classes and Kotlin's library as a signed APK. It lacks ExecuTorch, whose
#     classes dx can't read, so it can't run: Gradle builds the one that can (docs/android.md)
#   - ktlint over all Kotlin of android_bench
# Each half does nothing where no input of it changed since it last ended well.
. "$(dirname "${BASH_SOURCE[0]}")/builds.sh"

cd "$root"
sdk=$root/.toolchains/android_api
kotlin=$root/.toolchains/kotlin
bench=android_bench
out=$root/build/android
work=$out/work
report=$out/report

version() { sed -nE "s/^$1 = \"(.*)\"/\1/p" "$bench/gradle/libs.versions.toml"; }

for needed in "$sdk/framework-res.apk:android_api" "$kotlin/kotlinc:kotlin" "$kotlin/ktlint:kotlin"; do
    [ -e "${needed%%:*}" ] || die "no ${needed%%:*}; run: tools/toolchains/${needed##*:}.sh"
done
locked "$out"

android_jar() {
    find "$bench/typecheck/stubs" -name '*.java' -print0 |
        xargs -0 javac --release 8 -Xlint:-options -nowarn -cp "$sdk/android-23.jar" -d "$work/stubs" &&
        jar --create --file "$work/stubs.jar" -C "$work/stubs" . &&
        java -cp "$sdk/asm.jar" "$bench/typecheck/AddMembers.java" "$sdk/android-23.jar" "$work/stubs.jar" "$work/android.jar"
}

# What Gradle puts into the manifest, and one of API 33's types for API 34's specialUse, which framework-res.apk lacks.
package_resources() {
    sed -e 's/<manifest /<manifest package="dev.blocktime.bench" /' -e 's/"specialUse"/"dataSync"/' \
        "$bench/app/src/main/AndroidManifest.xml" >"$work/AndroidManifest.xml" &&
        aapt package -f -m -J "$work/generated" -M "$work/AndroidManifest.xml" -S "$bench/app/src/main/res" \
            -I "$sdk/framework-res.apk" -F "$work/unaligned.apk" \
            --min-sdk-version "$(version minSdk)" --target-sdk-version "$(version targetSdk)" \
            --version-code "$(version appCode)" --version-name "$(version appName)"
}

generated_classes() {
    {
        echo "package dev.blocktime.bench; public final class BuildConfig {"
        sed -nE 's/.*buildConfigField\("String", "([A-Z_]+)".*/public static final String \1 = "";/p' "$bench/app/build.gradle.kts"
        echo "}"
    } >"$work/generated/BuildConfig.java" &&
        find "$work/generated" -name '*.java' -print0 | xargs -0 javac --release 8 -Xlint:-options -nowarn -d "$work/classes"
}

type_check() {
    "$kotlin/kotlinc" -Werror -no-jdk -no-reflect -jvm-target 1.8 \
        -Xlambdas=class -Xsam-conversions=class -Xstring-concat=inline \
        -cp "$work/android.jar:$sdk/executorch-android-api.jar:$work/classes" -d "$work/classes" \
        "$bench"/{core,executorch,app}/src/main/kotlin
}

# Without META-INF, whose module-info dx can't read.
package_app() { # FILE
    (cd "$work/classes" && jar xf "$kotlin/node_modules/kotlin-compiler/lib/kotlin-stdlib.jar" kotlin) &&
        (cd "$work" && java -cp "$sdk/dx.jar" com.android.dx.command.Main --dex --min-sdk-version=26 \
            --output=classes.dex classes && aapt add unaligned.apk classes.dex >/dev/null) &&
        zipalign -f -p 4 "$work/unaligned.apk" "$work/aligned.apk" &&
        keytool -genkeypair -keystore "$work/key.p12" -storepass unrunnable -alias check -keyalg EC -groupname secp256r1 \
            -dname CN=check -validity 2 2>/dev/null &&
        apksigner sign --ks "$work/key.p12" --ks-pass pass:unrunnable --out "$1" "$work/aligned.apk"
}

describe() { # FILE
    apksigner verify --verbose --min-sdk-version "$(version minSdk)" "$1" >"$report/signature.txt" &&
        zipalign -c -p 4 "$1" &&
        aapt dump badging "$1" >"$report/badging.txt" &&
        aapt dump xmltree "$1" AndroidManifest.xml >"$report/manifest.txt" &&
        dexdump "$1" | sed -nE "s/^  Class descriptor  : '(.*)'/\1/p" >"$report/classes.txt"
}

checked_app() { # FILE
    rm -rf "$work" "$report"
    mkdir -p "$work"/{stubs,generated,classes} "$report"
    quietly android_jar
    quietly package_resources
    quietly generated_classes
    quietly type_check
    quietly package_app "$1"
    quietly describe "$1"
}

lint() { # FILE
    (cd "$bench" && quietly "$kotlin/ktlint" --relative --log-level=error '**/*.kt' '**/*.kts' '!**/build/**')
    touch "$1"
}

tools="$(digest tools/check_android.sh tools/builds.sh) $(digest_of "$kotlin/.packages") $(jdk)"
inputs="$(digest "$bench"/{core,executorch,app}/src/main "$bench"/{app/build.gradle.kts,gradle,typecheck} .toolchains/android_api) $tools"
once "$out/blocktime-unrunnable.apk" "$inputs" checked_app
once "$out/linted" "$(digest "$bench") $tools" lint
