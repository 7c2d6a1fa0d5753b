/* The atlas as one page for a browser: no file beside it, no request to anywhere. */
#include "atlas.h"
#include "json_out.h"

#include <string.h>

static const char head_of_page[] =
    "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n"
    "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<style>\n"
    ":root { color-scheme: light dark; --ink: #222; --paper: #fff; --a: #cfe3f7; --b: #f7e2c4; --line: #888 }\n"
    "@media (prefers-color-scheme: dark) { :root { --ink: #ddd; --paper: #181a1d; --a: #1f4463; --b: #5c431b } }\n"
    "body { font: 15px/1.6 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 60rem; "
    "margin: 2rem auto; padding: 0 1rem }\n"
    "h1 { font-size: 1.3rem; margin-bottom: 0 } h2 { font-size: 1.05rem; margin-top: 2rem }\n"
    "#text { white-space: pre-wrap; line-height: 1.9 } #text span { border-radius: 3px; padding: 1px 0 }\n"
    ".a { background: var(--a) } .b { background: var(--b) } .r { border-bottom: 1px dotted var(--line) }\n"
    "td, th { text-align: right; padding: 0 .8rem } td:first-child, th:first-child { text-align: left; padding-left: 0 }\n"
    "svg { max-width: 100% } svg text { fill: var(--ink); font: 12px system-ui } select { font: inherit }\n"
    "</style>\n";

static const char script[] =
    "<script>\n"
    "const A = JSON.parse(document.getElementById('atlas').textContent), H = A.layers * A.heads;\n"
    "const pick = document.getElementById('head'), text = document.getElementById('text');\n"
    "const state = (t, h) => A.states[h].charCodeAt(t) - 48;\n"
    "for (let h = 0; h < H; h++) pick.add(new Option('layer ' + (h / A.heads | 0) + ', head ' + h % A.heads + ': ' +\n"
    "  (100 * A.begin_share[h]).toFixed(0) + ' % of tokens begin a slot', h, false, h == A.typical));\n"
    "pick.add(new Option('all heads: the darker, the more of them begin a slot', -1));\n"
    "function show() {\n"
    "  const h = +pick.value; let turn = 0, from = 0; text.textContent = '';\n"
    "  A.tokens.forEach((word, t) => {\n"
    "    const span = document.createElement('span'); span.textContent = word;\n"
    "    if (h < 0) {\n"
    "      let n = 0; for (let i = 0; i < H; i++) n += state(t, i) == 1;\n"
    "      span.style.background = 'rgb(230 120 20 / ' + n / H + ')'; span.title = n + ' of ' + H + ' heads begin a slot here';\n"
    "    } else {\n"
    "      const s = state(t, h); if (s != 2) { turn ^= 1; from = t }\n"
    "      span.className = s == 0 ? 'r' : turn ? 'a' : 'b';\n"
    "      span.title = s == 0 ? 'recent: held exactly' : 'slot since token ' + from;\n"
    "      if (s && A.weights) {\n"
    "        const w = A.weights[h].charCodeAt(t) - 48; span.style.opacity = 0.3 + 0.7 * w / 9;\n"
    "        span.title += ', weight ' + (w < 9 ? '0.' + w : '0.9 or more');\n"
    "      }\n"
    "    }\n"
    "    text.append(span);\n"
    "  });\n"
    "}\n"
    "pick.onchange = show; show();\n"
    "</script>\n";

/* Everything that the script shows. Of each head a string, a digit for each token. */
static json_t *data(const atlas *a)
{
    int64_t H = (int64_t)a->n_layers * a->n_heads;
    json_t *o = json_new_object(), *tokens = json_new_array(), *states = json_new_array(), *share = json_new_array(),
           *weights = a->weighs ? json_new_array() : json_null();
    char *digits = dmc_malloc((size_t)a->n + 1, 1);
    if (!digits) return NULL;
    for (int64_t t = 0; t < a->n; t++) json_push(tokens, json_string(a->text[t]));
    for (int64_t h = 0; h < H; h++) {
        for (int64_t t = 0; t < a->n; t++) digits[t] = (char)('0' + a->state[t * H + h]);
        digits[a->n] = 0;
        json_push(states, json_string(digits));
        json_push_real(share, a->begin_share[h]);
        for (int64_t t = 0; a->weighs && t < a->n; t++) digits[t] = (char)('0' + a->weight[t * H + h]);
        if (a->weighs) json_push(weights, json_string(digits));
    }
    dmc_free(digits);
    json_put_int(o, "layers", a->n_layers);
    json_put_int(o, "heads", a->n_heads);
    json_put_int(o, "typical", atlas_typical_head(a, 0, a->n_layers * a->n_heads));
    json_put(o, "tokens", tokens);
    json_put(o, "states", states);
    json_put(o, "weights", weights);
    json_put(o, "begin_share", share);
    return o;
}

/* A script's content ends at "</script" whatever it is: no '<' may stand in it. */
static dmc_status put_data(dmc_writer *w, const atlas *a)
{
    json_t *o = data(a);
    char *text = o ? json_dumps(o, JSON_COMPACT) : NULL;
    json_decref(o);
    if (!text) return dmc_fail(DMC_ERR_MEMORY, "out of memory for the page");
    dmc_writef(w, "<script type=\"application/json\" id=\"atlas\">");
    for (const char *p = text; *p; p++) {
        if (*p == '<') dmc_writef(w, "\\u003c");
        else dmc_write(w, p, 1);
    }
    dmc_writef(w, "</script>\n");
    free(text);
    return DMC_OK;
}

/* Tokens a slot against the position in the window. */
static void put_curve(dmc_writer *w, const atlas *a)
{
    enum { LEFT = 46, TOP = 12, WIDTH = 560, HEIGHT = 160 };
    double top = 1;
    for (int i = 0; i < a->n_bins; i++)
        if (a->begins_in[i])
            top = (double)a->settled_in[i] / (double)a->begins_in[i] > top
                      ? (double)a->settled_in[i] / (double)a->begins_in[i]
                      : top;
    dmc_writef(w, "<svg width=\"%d\" height=\"%d\" viewBox=\"0 0 %d %d\">\n", LEFT + WIDTH + 20, TOP + HEIGHT + 34,
               LEFT + WIDTH + 20, TOP + HEIGHT + 34);
    for (int i = 0; i <= 4; i++) {
        double y = TOP + HEIGHT * (1 - i / 4.0);
        dmc_writef(w,
                   "<path d=\"M%d %gh%d\" stroke=\"#8884\"/><text x=\"%d\" y=\"%g\" text-anchor=\"end\">%.1f</text>\n",
                   LEFT, y, WIDTH, LEFT - 6, y + 4, top * i / 4);
    }
    dmc_writef(w, "<path fill=\"none\" stroke=\"#2a7fc0\" stroke-width=\"2\" d=\"");
    bool begun = false;
    for (int i = 0; i < a->n_bins; i++) {
        if (!a->begins_in[i]) continue;
        double cr = (double)a->settled_in[i] / (double)a->begins_in[i];
        dmc_writef(w, "%c%.1f %.1f", begun ? 'L' : 'M', LEFT + WIDTH * (i + 0.5) / a->n_bins,
                   TOP + HEIGHT * (1 - cr / top));
        begun = true;
    }
    dmc_writef(
        w,
        "\"/>\n<text x=\"%d\" y=\"%d\">0</text><text x=\"%d\" y=\"%d\" text-anchor=\"end\">token %d of the window</text>\n</svg>\n",
        LEFT, TOP + HEIGHT + 18, LEFT + WIDTH, TOP + HEIGHT + 18, a->ctx);
}

static void put_places(dmc_writer *w, const atlas *a)
{
    double all = atlas_begin_rate(a->begins, a->settled);
    dmc_writef(w, "<table><tr><th>token</th><th>seen</th><th>begin a slot</th><th>against all</th></tr>\n");
    for (int i = 0; i < ATLAS_PLACES; i++) {
        double rate = atlas_begin_rate(a->begins_at[i], a->settled_at[i]);
        dmc_writef(w, "<tr><td>%s</td><td>%lld</td><td>%.1f %%</td><td>%.2fx</td></tr>\n", atlas_place_names[i],
                   (long long)(a->settled_at[i] / (a->n_layers * a->n_heads)), 100 * rate, all > 0 ? rate / all : 0);
    }
    dmc_writef(w, "</table>\n");
}

dmc_status atlas_page(const atlas *a, const picture *maps, const char *path)
{
    dmc_writer *w;
    DMC_TRY(dmc_writer_open(&w, path));
    dmc_writef(w, "%s<title>", head_of_page);
    picture_escape(w, maps->title);
    dmc_writef(w, "</title></head><body>\n<h1>");
    picture_escape(w, maps->title);
    dmc_writef(w, "</h1>\n<p>");
    picture_escape(w, maps->subtitle);
    dmc_writef(w, "</p>\n<h2>Layers and heads</h2>\n");
    picture_write_svg(w, maps);
    dmc_writef(w, "<h2>Tokens a slot, along the window</h2>\n");
    put_curve(w, a);
    dmc_writef(w, "<h2>Where slots begin</h2>\n");
    put_places(w, a);
    dmc_writef(w, "<h2>The text and its slots</h2>\n<p><select id=\"head\"></select></p>\n<div id=\"text\"></div>\n");
    dmc_status status = put_data(w, a);
    if (status != DMC_OK) {
        dmc_writer_abort(w);
        return status;
    }
    dmc_writef(w, "%s</body></html>\n", script);
    return dmc_writer_commit(w);
}
