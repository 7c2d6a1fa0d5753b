# What the .test files call; run.sh explains it.
test_name='' fault='' skip_reason=''

# Reports the test before this one.
done_with_test() {
    [ -n "$test_name" ] || return 0
    if [ -n "$skip_reason" ]; then
        echo "skip $test_name: $skip_reason"
    elif [ -n "$fault" ]; then
        echo "FAIL $test_name: $fault"
        sed 's/^/    out: /' .stdout | head -n 15
        sed 's/^/    err: /' .stderr | head -n 15
    else
        echo "ok $test_name"
    fi
    test_name='' fault='' skip_reason=''
}

t() {
    done_with_test
    test_name=$1
    : > .stdout
    : > .stderr
}

wrong() { # the first fault of a test is the one that is told
    [ -n "$fault" ] || fault=$1
}

run() {
    "$@" > .stdout 2> .stderr
    ran=$?
    if [ $ran -ge 126 ]; then wrong "'${*##*/}' died with status $ran"; fi
    if grep -q 'Sanitizer' .stderr; then wrong "a sanitizer complains"; fi
}

status() { [ "$ran" = "$1" ] || wrong "exit status $ran, not $1"; }
out() { grep -Eq -- "$1" .stdout || wrong "stdout has no '$1'"; }
err() { grep -Eq -- "$1" .stderr || wrong "stderr has no '$1'"; }
no_out() { [ ! -s .stdout ] || wrong "stdout is not empty"; }
no_err() { [ ! -s .stderr ] || wrong "stderr is not empty"; }
is() { diff -u "$ROOT/tests/cli/golden/$1" .stdout > .diff || { cp .diff .stdout; wrong "stdout is not golden/$1"; }; }
ok() { "$@" > /dev/null 2>&1 || wrong "failed: $*"; }
skip() { skip_reason=$1; }
