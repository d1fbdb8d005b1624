#!/usr/bin/env bash
# Checks the Android app where there is no Android SDK, into build/android:
#   - type check: core, ExecuTorch's runtime and the app against android.jar (API 23 and the newer members of
#     android_bench/typecheck) and the classes of ExecuTorch's Android library
#   - packaging: resources, manifest and the app's classes as a signed APK. It lacks ExecuTorch and Kotlin's library,
#     so it can't run: Gradle builds the one that can (docs/android.md)
#   - ktlint over all Kotlin of android_bench
# Each half does nothing where no input of it changed since it last ended well.
set -euo pipefail
cd "$(dirname "$0")/.."
sdk=$PWD/.toolchains/android_api
kotlin=$PWD/.toolchains/kotlin
bench=android_bench
out=$PWD/build/android
apk=$out/blocktime-unrunnable.apk

fail() { echo "check_android.sh: $*" >&2; exit 1; }
version() { sed -nE "s/^$1 = \"(.*)\"/\1/p" "$bench/gradle/libs.versions.toml"; }

for needed in "$sdk/framework-res.apk:android_api" "$kotlin/kotlinc:kotlin" "$kotlin/ktlint:kotlin"; do
    [ -e "${needed%%:*}" ] || fail "no ${needed%%:*}; run: tools/toolchains/${needed##*:}.sh"
done
mkdir -p "$out"
exec 9>"$out/.lock"
flock 9

work=$out/work
report=$out/report
mkdir -p "$work" "$report"

digest() { find "$@" -type f ! -path '*/build/*' ! -name .lock -print0 | sort -z | xargs -0 sha256sum | sha256sum; }
step() { "$2" >"$work/log" 2>&1 || { cat "$work/log" >&2; fail "$1 failed"; }; }

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

package_app() {
    (cd "$work" && java -cp "$sdk/dx.jar" com.android.dx.command.Main --dex --min-sdk-version=26 \
        --output=classes.dex classes && aapt add unaligned.apk classes.dex >/dev/null) &&
        zipalign -f -p 4 "$work/unaligned.apk" "$work/aligned.apk" &&
        keytool -genkeypair -keystore "$work/key.p12" -storepass unrunnable -alias check -keyalg EC -groupname secp256r1 \
            -dname CN=check -validity 2 2>/dev/null &&
        apksigner sign --ks "$work/key.p12" --ks-pass pass:unrunnable --out "$apk" "$work/aligned.apk"
}

describe() {
    apksigner verify --verbose --min-sdk-version "$(version minSdk)" "$apk" >"$report/signature.txt" &&
        zipalign -c -p 4 "$apk" &&
        aapt dump badging "$apk" >"$report/badging.txt" &&
        aapt dump xmltree "$apk" AndroidManifest.xml >"$report/manifest.txt" &&
        dexdump "$apk" | sed -nE "s/^  Class descriptor  : '(.*)'/\1/p" >"$report/classes.txt"
}

lint() { (cd "$bench" && "$kotlin/ktlint" --relative --log-level=error '**/*.kt' '**/*.kts' '!**/build/**'); }

inputs=$(digest "$bench"/{core,executorch,app}/src/main "$bench"/{app/build.gradle.kts,gradle,typecheck} "$sdk" tools/check_android.sh)
if [ ! -f "$apk" ] || [ "$inputs" != "$(cat "$report/inputs" 2>/dev/null)" ]; then
    rm -rf "$work" "$report/inputs" "$apk"*
    mkdir -p "$work"/{stubs,generated,classes}
    step "android.jar with newer members" android_jar
    step "resources and manifest" package_resources
    step "generated classes" generated_classes
    step "type check" type_check
    step "packaging" package_app
    step "verification" describe
    echo "$inputs" >"$report/inputs"
    echo "type check and packaging passed: $apk"
fi

inputs=$(digest "$bench" tools/check_android.sh)
if [ "$inputs" != "$(cat "$report/linted" 2>/dev/null)" ]; then
    rm -f "$report/linted"
    step "ktlint" lint
    echo "$inputs" >"$report/linted"
    echo "ktlint passed"
fi
