# apt-get that waits where another program holds one of its locks: a fresh Ubuntu installs its own updates for
# minutes. To be sourced.

apt_get() { # ARGUMENTS OF apt-get...: quiet unless it fails; waits up to ten minutes
    local output waited="" last=$((SECONDS + 600))
    # apt waits for dpkg's lock by itself, but not for those of the package lists and of the downloads (apt 2.6)
    until output=$(LC_ALL=C apt-get -qq -o DPkg::Lock::Timeout=15 "$@" 2>&1); do
        if [[ $output != *"Could not get lock"* ]] || ((SECONDS > last)); then
            echo "$output" >&2
            return 1
        fi
        [ "$waited" ] || echo "waiting for another program that uses apt" >&2
        waited=yes
        sleep 5
    done
}
