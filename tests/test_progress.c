/* The progress line, with a clock of our own, and the JSON helpers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "json_out.h"
#include "progress.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static double clock_now;
static double test_clock(void) { return clock_now; }

static char *text;
static size_t text_size;

static progress begin(progress_options o)
{
    progress p;
    o.out = open_memstream(&text, &text_size);
    assert_non_null(o.out);
    o.now = test_clock;
    clock_now = 100;
    progress_start(&p, &o);
    return p;
}

static char *finish(progress *p)
{
    fclose(p->o.out);
    return text;
}

static void test_log_lines(void **state)
{
    (void)state;
    progress p =
        begin((progress_options){.title = "train", .total = 100, .unit = "tok", .per_item = 512, .columns = -1});
    for (int i = 1; i <= 100; i++) {
        clock_now += 0.5;
        progress_update(&p, i, "loss %.1f", 100.0 / i);
    }
    progress_note(&p, "saved");
    progress_end(&p);
    char *s = finish(&p);
    assert_string_equal(s, "train  20%  20/100  loss 5.0  1024 tok/s  0:10  0:40 left\n"
                           "train  40%  40/100  loss 2.5  1024 tok/s  0:20  0:30 left\n"
                           "train  60%  60/100  loss 1.7  1024 tok/s  0:30  0:20 left\n"
                           "train  80%  80/100  loss 1.2  1024 tok/s  0:40  0:10 left\n"
                           "train 100%  100/100  loss 1.0  1024 tok/s  0:50\n"
                           "saved\n"); /* the end has been said already */
    free(s);
}

/* Columns of the longest line that the terminal would show. */
static int widest(const char *s)
{
    int column = 0, most = 0;
    for (; *s; s++) {
        if (*s == '\033') {
            while (*s && !strchr("mK", *s)) s++;
            continue;
        }
        column = *s == '\r' || *s == '\n' ? 0 : column + (((unsigned char)*s & 0xc0) != 0x80);
        if (column > most) most = column;
    }
    return most;
}

static void test_terminal(void **state)
{
    (void)state;
    for (int columns = 1; columns < 140; columns++) {
        progress p = begin((progress_options){.title = "retrofit", .total = 100, .unit = "tok", .columns = columns});
        for (int i = 1; i <= 100; i++) {
            clock_now += 0.06;
            progress_update(&p, i, "loss 1.23 ± 0.1");
        }
        progress_end(&p);
        char *s = finish(&p);
        assert_true(widest(s) < columns || columns == 1);
        assert_int_equal(s[strlen(s) - 1], '\n');
        int drawings = 0;
        for (const char *c = s; *c; c++) drawings += *c == '\r';
        assert_int_equal(drawings, 51); /* at most ten a second, and the last one */
        if (columns >= 100) assert_non_null(strstr(s, "\033[32m━━━━"));
        free(s);
    }
}

static void test_resumed(void **state)
{
    (void)state;
    progress p = begin((progress_options){.title = "t", .first = 90, .total = 100, .columns = -1, .interval = 1});
    clock_now += 2;
    progress_update(&p, 91, "x");
    char *s = finish(&p);
    assert_string_equal(s, "t  91%  91/100  x  0:02  0:18 left\n"); /* the 90 done before say nothing about the speed */
    free(s);
}

static void test_plain(void **state)
{
    (void)state;
    progress p = begin((progress_options){.title = "t", .total = 4, .columns = 60, .no_color = true});
    clock_now += 1;
    progress_update(&p, 2, "x");
    progress_note(&p, "hello");
    progress_end(&p);
    char *s = finish(&p);
    assert_null(strstr(s, "\033[32m"));
    assert_non_null(strstr(s, "\r\033[Khello\n"));
    free(s);

    p = begin((progress_options){.title = "t", .total = 4, .columns = 60, .quiet = true});
    clock_now += 1;
    progress_update(&p, 2, "x");
    progress_note(&p, "hello");
    progress_end(&p);
    s = finish(&p);
    assert_string_equal(s, "");
    free(s);

    p = begin((progress_options){.title = "t", .columns = -1, .unit = "tok", .per_item = 1e5});
    clock_now += 3700;
    progress_update(&p, 370000, "y");
    s = finish(&p);
    assert_string_equal(s, "t  370000  y  10.0M tok/s  1:01:40\n");
    free(s);
}

static void test_json(void **state)
{
    (void)state;
    json_t *o = json_new_object(), *a = json_new_array();
    json_put_int(o, "i", INT64_MIN);
    json_put_real(o, "r", 0.1);
    json_put_real(o, "nan", NAN);
    json_put_bool(o, "b", 1);
    json_put_string(o, "s", "\"é\"");
    json_put_text(o, "t", "a\xff\xe2\x82z\0", 6);
    json_push_int(a, 3);
    json_push_real(a, INFINITY);
    json_put(o, "a", a);

    FILE *real = stdout;
    stdout = open_memstream(&text, &text_size);
    json_print(o);
    fclose(stdout);
    stdout = real;
    assert_string_equal(text, "{\n  \"i\": -9223372036854775808,\n  \"r\": 0.1,\n  \"nan\": null,\n  \"b\": true,\n"
                              "  \"s\": \"\\\"é\\\"\",\n  \"t\": \"a\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbdz\\u0000\",\n"
                              "  \"a\": [\n    3,\n    null\n  ]\n}\n");
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_log_lines), cmocka_unit_test(test_terminal),
                                       cmocka_unit_test(test_resumed), cmocka_unit_test(test_plain),
                                       cmocka_unit_test(test_json)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
