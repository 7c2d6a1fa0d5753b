# Reads the output of 'ctest --verbose' whose tests print TAP, and counts. per=case: every test case counts, one that was
# planned but never reported (the program died) as failed. per=program: every program counts once.
# Prints what failed, with the program's output, and what was skipped, with its reason; the last line is the count.

/^ *[0-9]+: / {
    id = $1 + 0
    line = $0
    sub(/^ *[0-9]+: /, "", line)
    if (line ~ /^(Test command|Working Directory|Test timeout computed|Environment variables):?/) next
    if (++lines[id] <= 60) output[id] = output[id] "    " line "\n"
    if (line ~ /^1\.\.[0-9]+$/) planned[id] += substr(line, 4)
    else if (line ~ /^(not )?ok [0-9]+ # SKIP/) {
        sub(/^.*# SKIP */, "", line)
        skip[id]++
        skips[id] = skips[id] "    skipped: " line (reason[id] ? " (" reason[id] ")" : "") "\n"
    } else if (line ~ /^ok [0-9]+ - /) good[id]++
    else if (line ~ /^not ok [0-9]+ - /) bad[id]++
    reason[id] = line ~ /^(not )?ok |^1\.\./ ? "" : line
    next
}

/ Test +#[0-9]+: / {
    match($0, /#[0-9]+: [^ ]+/)
    split(substr($0, RSTART + 1, RLENGTH - 1), word, ": ")
    id = word[1] + 0
    name = word[2]
    ended_well = / Passed /
    silent = planned[id] - good[id] - bad[id] - skip[id]
    if (silent < 0) silent = 0
    if (!ended_well && bad[id] + silent == 0) silent = 1 # died after its last case, or before the first
    bad[id] += silent
    seconds = $(NF - 1)
    if (per == "program") {
        passed += !bad[id]
        failed += bad[id] > 0
        printf "  %-28s %s, %s s\n", name, bad[id] ? "FAILED" : "passed", seconds
    } else {
        passed += good[id]
        failed += bad[id]
        skipped += skip[id]
        printf "  %-28s %d passed", name, good[id]
        if (bad[id]) printf ", %d FAILED", bad[id]
        if (skip[id]) printf ", %d skipped", skip[id]
        printf ", %s s\n%s", seconds, skips[id]
    }
    if (bad[id]) {
        if (!ended_well) print "    " $0
        printf "%s", output[id]
        if (lines[id] > 60) print "    ... and " lines[id] - 60 " lines more, in ctest.log of the build directory"
    }
}

END { printf "%d passed, %d failed, %d skipped\n", passed, failed, skipped }
