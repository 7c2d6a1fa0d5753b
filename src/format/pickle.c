#include "format/pickle.h"

#include <string.h>

enum { PICKLE_LIMIT = 8 << 20, BLOCK_BYTES = 64 << 10, PROTOCOL_LIMIT = 5 };

/* ---- what may be named ---- */

/* What a name does when it is called. */
typedef enum {
    MAKES_DICT,      /* an empty one */
    MAKES_NAMESPACE, /* the same; its attributes are set by BUILD */
    MAKES_TENSOR,    /* (storage, offset, shape, strides, ...) */
    MAKES_FIRST,     /* its first argument, a tensor or a tuple */
    MAKES_TYPED,     /* (function, type, arguments, ...): what the function makes */
    MAKES_OPAQUE,
    IS_STORAGE /* is not called; names the type of a storage */
} meaning;

typedef struct {
    const char *module, *name; /* NULL: any name */
    meaning does;
    size_t element_bytes; /* of a storage */
    dmc_dtype dtype;
} known_global;

static const known_global known[] = {
    {"collections", "OrderedDict", MAKES_DICT, 0, 0},
    {"collections", "defaultdict", MAKES_OPAQUE, 0, 0},
    {"argparse", "Namespace", MAKES_NAMESPACE, 0, 0},
    {"types", "SimpleNamespace", MAKES_NAMESPACE, 0, 0},
    {"torch._utils", "_rebuild_tensor_v2", MAKES_TENSOR, 0, 0},
    {"torch._utils", "_rebuild_parameter", MAKES_FIRST, 0, 0},
    {"torch._utils", "_rebuild_parameter_with_state", MAKES_FIRST, 0, 0},
    {"torch._tensor", "_rebuild_from_type_v2", MAKES_TYPED, 0, 0},
    {"torch", "Size", MAKES_FIRST, 0, 0},
    {"torch", "FloatStorage", IS_STORAGE, 4, DMC_F32},
    {"torch", "HalfStorage", IS_STORAGE, 2, DMC_F16},
    {"torch", "BFloat16Storage", IS_STORAGE, 2, DMC_BF16},
    {"torch", "DoubleStorage", IS_STORAGE, 8, DMC_DTYPE_COUNT},
    {"torch", "LongStorage", IS_STORAGE, 8, DMC_DTYPE_COUNT},
    {"torch", "IntStorage", IS_STORAGE, 4, DMC_DTYPE_COUNT},
    {"torch", "ShortStorage", IS_STORAGE, 2, DMC_DTYPE_COUNT},
    {"torch", "CharStorage", IS_STORAGE, 1, DMC_DTYPE_COUNT},
    {"torch", "ByteStorage", IS_STORAGE, 1, DMC_DTYPE_COUNT},
    {"torch", "BoolStorage", IS_STORAGE, 1, DMC_DTYPE_COUNT},
    {"torch", "Tensor", MAKES_OPAQUE, 0, 0}, /* types and devices stand for themselves */
    {"torch.nn.parameter", "Parameter", MAKES_OPAQUE, 0, 0},
    {"torch", "device", MAKES_OPAQUE, 0, 0},
    {"torch", "float32", MAKES_OPAQUE, 0, 0},
    {"torch", "float16", MAKES_OPAQUE, 0, 0},
    {"torch", "bfloat16", MAKES_OPAQUE, 0, 0},
    {"torch", "float64", MAKES_OPAQUE, 0, 0},
    {"torch", "int64", MAKES_OPAQUE, 0, 0},
    {"torch", "int32", MAKES_OPAQUE, 0, 0},
    {"torch", "uint8", MAKES_OPAQUE, 0, 0},
    {"numpy", "dtype", MAKES_OPAQUE, 0, 0}, /* states of random generators, and what counts them */
    {"numpy", "ndarray", MAKES_OPAQUE, 0, 0},
    {"numpy.core.multiarray", "_reconstruct", MAKES_OPAQUE, 0, 0},
    {"numpy._core.multiarray", "_reconstruct", MAKES_OPAQUE, 0, 0},
    {"numpy.core.multiarray", "scalar", MAKES_OPAQUE, 0, 0},
    {"numpy._core.multiarray", "scalar", MAKES_OPAQUE, 0, 0},
    {"_codecs", "encode", MAKES_OPAQUE, 0, 0}, /* bytes, in protocol 2 */
    {"_io", "BytesIO", MAKES_OPAQUE, 0, 0},    /* extra state of Transformer Engine */
    {"__builtin__", "set", MAKES_OPAQUE, 0, 0},
    {"__builtin__", "dict", MAKES_OPAQUE, 0, 0},
    {"builtins", "set", MAKES_OPAQUE, 0, 0},
    {"builtins", "dict", MAKES_OPAQUE, 0, 0},
    {"signal", "Signals", MAKES_OPAQUE, 0, 0},
    {"signal", "SIGTERM", MAKES_OPAQUE, 0, 0},
    {"pathlib", "PosixPath", MAKES_OPAQUE, 0, 0},
    {"pathlib._local", "PosixPath", MAKES_OPAQUE, 0, 0},
    {"megatron.core.enums", NULL, MAKES_OPAQUE, 0, 0},
    {"megatron.core.transformer.enums", NULL, MAKES_OPAQUE, 0, 0},
    {"megatron.model.enums", NULL, MAKES_OPAQUE, 0, 0},
    {"megatron.legacy.model.enums", NULL, MAKES_OPAQUE, 0, 0},
    {"megatron.core.rerun_state_machine", NULL, MAKES_OPAQUE, 0, 0},
};

/* ---- the machine ---- */

typedef struct {
    const known_global *type;
    const dmc_zip_entry *entry;
    size_t n_elements;
} storage;

typedef struct block {
    struct block *next;
    uint8_t bytes[BLOCK_BYTES];
} block;

struct dmc_pickle {
    const uint8_t *bytes, *at, *end;
    const dmc_zip *zip;
    dmc_pickle_text prefix;
    const char *where; /* the caller's, while it runs */
    dmc_pickle_value **stack, **memo;
    size_t n_stack, stack_room, n_memo, n_puts; /* memo: NULL where nothing was put */
    size_t *marks;                              /* heights of the stack */
    size_t n_marks, marks_room;
    block *blocks;
    size_t block_used, n_members;
    const dmc_pickle_value *root;
};

static dmc_status fail(const dmc_pickle *p, const char *what)
{
    return dmc_fail(DMC_ERR_FORMAT, "%s: the pickle is damaged at byte %zu: %s", p->where, (size_t)(p->at - p->bytes),
                    what);
}

/* Memory that lives as long as the pickle. */
static dmc_status take(void *out_pointer, dmc_pickle *p, size_t bytes)
{
    void *got;
    bytes = (bytes + 7) & ~(size_t)7;
    if (!p->blocks || bytes > BLOCK_BYTES - p->block_used) {
        block *b = dmc_malloc(1, sizeof *b);
        if (!b) return dmc_fail(DMC_ERR_MEMORY, "%s: out of memory for a pickle", p->where);
        b->next = p->blocks;
        p->blocks = b;
        p->block_used = 0;
    }
    got = p->blocks->bytes + p->block_used;
    p->block_used += bytes;
    memset(got, 0, bytes);
    memcpy(out_pointer, &got, sizeof got);
    return DMC_OK;
}

/* Room for one more element in an array that doubles. */
static dmc_status grow(void *array_pointer, size_t *room, size_t n, size_t size, const dmc_pickle *p)
{
    void *array, *grown;
    if (n < *room) return DMC_OK;
    memcpy(&array, array_pointer, sizeof array);
    size_t wanted = n < 32 ? 64 : 2 * n;
    grown = dmc_realloc(array, wanted, size);
    if (!grown) return dmc_fail(DMC_ERR_MEMORY, "%s: out of memory for a pickle", p->where);
    memcpy(array_pointer, &grown, sizeof grown);
    *room = wanted;
    return DMC_OK;
}

static dmc_status push(dmc_pickle *p, dmc_pickle_value *v)
{
    DMC_TRY(grow(&p->stack, &p->stack_room, p->n_stack, sizeof(dmc_pickle_value *), p));
    p->stack[p->n_stack++] = v;
    return DMC_OK;
}

static dmc_status push_new(dmc_pickle *p, dmc_pickle_value value)
{
    dmc_pickle_value *v = NULL;
    DMC_TRY(take(&v, p, sizeof *v));
    *v = value;
    return push(p, v);
}

/* How many values lie above the newest mark (or the bottom). */
static size_t above_mark(const dmc_pickle *p) { return p->n_stack - (p->n_marks ? p->marks[p->n_marks - 1] : 0); }

static dmc_status need(const dmc_pickle *p, size_t n)
{
    return above_mark(p) >= n ? DMC_OK : fail(p, "an instruction finds too little on the stack");
}

/* Takes the values above the newest mark, and the mark: *items, *n, valid until the next push. */
static dmc_status pop_to_mark(dmc_pickle_value ***items, size_t *n, dmc_pickle *p)
{
    if (p->n_marks == 0) return fail(p, "an instruction finds no mark");
    *n = above_mark(p);
    p->n_stack = p->marks[--p->n_marks];
    *items = p->stack + p->n_stack;
    return DMC_OK;
}

/* ---- operands ---- */

static dmc_status take_bytes(const uint8_t **out, dmc_pickle *p, uint64_t n)
{
    if (n > (uint64_t)(p->end - p->at)) return fail(p, "it is cut off");
    *out = p->at;
    p->at += n;
    return DMC_OK;
}

/* A little-endian number of up to 8 bytes. */
static dmc_status take_number(uint64_t *out, dmc_pickle *p, int bytes)
{
    const uint8_t *b = NULL;
    DMC_TRY(take_bytes(&b, p, (uint64_t)bytes));
    *out = 0;
    for (int i = 0; i < bytes; i++) *out |= (uint64_t)b[i] << 8 * i;
    return DMC_OK;
}

/* Text with a length of so many bytes before it. */
static dmc_status take_text(dmc_pickle_text *out, dmc_pickle *p, int length_bytes)
{
    uint64_t n = 0;
    const uint8_t *s = NULL;
    DMC_TRY(take_number(&n, p, length_bytes));
    DMC_TRY(take_bytes(&s, p, n));
    *out = (dmc_pickle_text){(const char *)s, (size_t)n};
    return DMC_OK;
}

static dmc_status take_line(dmc_pickle_text *out, dmc_pickle *p)
{
    const uint8_t *end = memchr(p->at, '\n', (size_t)(p->end - p->at));
    if (!end) return fail(p, "it is cut off within a name");
    *out = (dmc_pickle_text){(const char *)p->at, (size_t)(end - p->at)};
    p->at = end + 1;
    return DMC_OK;
}

static bool is(dmc_pickle_text t, const char *s) { return t.n == strlen(s) && memcmp(t.s, s, t.n) == 0; }

/* ---- names ---- */

/* As much of a foreign text as a message can hold. */
static const char *printable(char out[80], dmc_pickle_text t)
{
    size_t n = t.n < 79 ? t.n : 79;
    for (size_t i = 0; i < n; i++) out[i] = t.s[i];
    for (size_t i = 0; i < n; i++)
        if (out[i] < ' ' || out[i] > '~') out[i] = '?';
    out[n] = 0;
    return out;
}

static dmc_status push_global(dmc_pickle *p, dmc_pickle_text module, dmc_pickle_text name)
{
    char shown[2][80];
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (is(module, known[i].module) && (!known[i].name || is(name, known[i].name)))
            return push_new(p, (dmc_pickle_value){.kind = DMC_PICKLE_GLOBAL, .internal = &known[i]});
    return dmc_fail(
        DMC_ERR_UNSUPPORTED,
        "%s: refused: the pickle asks for '%s.%s', which a checkpoint has no need of. Nothing of it was run. "
        "If you trust its origin, load it in Python and save its 'model' and 'args' alone",
        p->where, printable(shown[0], module), printable(shown[1], name));
}

static const known_global *as_global(const dmc_pickle_value *v)
{
    return v->kind == DMC_PICKLE_GLOBAL ? v->internal : NULL;
}

/* ---- tensors ---- */

static const dmc_pickle_value *nth(const dmc_pickle_value *list, size_t i)
{
    const dmc_pickle_item *item = list->kind == DMC_PICKLE_LIST ? list->items.first : NULL;
    while (item && i--) item = item->next;
    return item ? item->value : NULL;
}

static bool natural(size_t *out, const dmc_pickle_value *v)
{
    if (!v || v->kind != DMC_PICKLE_INT || v->integer < 0) return false;
    *out = (size_t)v->integer;
    return true;
}

/* ('storage', type, key, device, number of elements), a reference to an entry of the archive. */
static dmc_status load_storage(dmc_pickle *p)
{
    char name[256], shown[80];
    storage *s = NULL;
    DMC_TRY(need(p, 1));
    const dmc_pickle_value *id = p->stack[--p->n_stack];
    const dmc_pickle_value *type = nth(id, 1), *key = nth(id, 2);
    DMC_TRY(take(&s, p, sizeof *s));
    s->type = type ? as_global(type) : NULL;
    if (!dmc_pickle_equals(nth(id, 0), "storage") || !s->type || s->type->does != IS_STORAGE || !key ||
        key->kind != DMC_PICKLE_TEXT || !natural(&s->n_elements, nth(id, 4)))
        return fail(p, "a reference that is not to a tensor's storage");
    int n = snprintf(name, sizeof name, "%.*s/data/%s", (int)p->prefix.n, p->prefix.s, printable(shown, key->text));
    s->entry = p->zip && n > 0 && (size_t)n < sizeof name ? dmc_zip_find(p->zip, name, (size_t)n) : NULL;
    if (!s->entry) return dmc_fail(DMC_ERR_FORMAT, "%s: the data of a tensor, entry '%s', is missing", p->where, name);
    size_t bytes;
    if (!dmc_mul(&bytes, s->n_elements, s->type->element_bytes) || bytes != s->entry->bytes)
        return dmc_fail(DMC_ERR_FORMAT, "%s: '%s' has %zu bytes, the pickle says %zu elements of %zu bytes", p->where,
                        name, s->entry->bytes, s->n_elements, s->type->element_bytes);
    return push_new(p, (dmc_pickle_value){.kind = DMC_PICKLE_STORAGE, .internal = s});
}

/* Shape and strides, innermost last; the last element that they reach. */
static bool read_view(dmc_pickle_tensor *t, size_t *last, const dmc_pickle_value *shape,
                      const dmc_pickle_value *strides)
{
    size_t stride[DMC_PICKLE_DIMS], size, step, expected = 1;
    bool empty = false;
    if (!shape || !strides || shape->kind != DMC_PICKLE_LIST || strides->kind != DMC_PICKLE_LIST) return false;
    const dmc_pickle_item *a = shape->items.first, *b = strides->items.first;
    for (; a && b && t->n_dims < DMC_PICKLE_DIMS; a = a->next, b = b->next) {
        if (!natural(&size, a->value) || !natural(&stride[t->n_dims], b->value)) return false;
        t->shape[t->n_dims++] = (int64_t)size;
    }
    if (a || b) return false;
    *last = 0;
    t->contiguous = true;
    for (int i = t->n_dims - 1; i >= 0; i--) {
        size = (size_t)t->shape[i];
        empty = empty || size == 0;
        t->contiguous = t->contiguous && (size == 1 || stride[i] == expected);
        if (!dmc_mul(&expected, expected, size)) return false;
        if (size && (!dmc_mul(&step, size - 1, stride[i]) || !dmc_add(last, *last, step))) return false;
    }
    t->contiguous = t->contiguous && !empty;
    return true;
}

static dmc_status make_tensor(dmc_pickle_value *out, dmc_pickle *p, const dmc_pickle_value *arguments)
{
    const dmc_pickle_value *from = nth(arguments, 0);
    dmc_pickle_tensor *t = NULL;
    size_t offset, last, end;
    DMC_TRY(take(&t, p, sizeof *t));
    if (!from || from->kind != DMC_PICKLE_STORAGE || !natural(&offset, nth(arguments, 1)) ||
        !read_view(t, &last, nth(arguments, 2), nth(arguments, 3)))
        return fail(p, "a tensor without storage, or with a shape or strides that cannot be");
    const storage *s = from->internal;
    bool empty = false;
    for (int i = 0; i < t->n_dims; i++) empty = empty || t->shape[i] == 0;
    if (offset > s->n_elements || (!empty && (!dmc_add(&end, offset, last) || end >= s->n_elements)))
        return fail(p, "a tensor reaches beyond its storage");
    t->dtype = s->type->dtype;
    t->entry = s->entry;
    t->data = s->entry->data + offset * s->type->element_bytes;
    *out = (dmc_pickle_value){.kind = DMC_PICKLE_TENSOR, .tensor = t};
    return DMC_OK;
}

/* ---- containers ---- */

static dmc_status append(dmc_pickle *p, dmc_pickle_value *container, const dmc_pickle_value *value)
{
    dmc_pickle_item *item = NULL;
    DMC_TRY(take(&item, p, sizeof *item));
    item->value = value;
    if (container->items.last) container->items.last->next = item;
    else container->items.first = item;
    container->items.last = item;
    p->n_members++;
    return DMC_OK;
}

/* Adds n values to the container on top of the stack; a dictionary takes them as keys and values in turn. */
static dmc_status extend(dmc_pickle *p, dmc_pickle_kind kind, dmc_pickle_value **items, size_t n)
{
    DMC_TRY(need(p, 1));
    dmc_pickle_value *container = p->stack[p->n_stack - 1];
    if (container->kind == DMC_PICKLE_OPAQUE) return DMC_OK;
    if (container->kind != kind) return fail(p, "something is added to what is no list or dictionary");
    if (kind == DMC_PICKLE_DICT && n % 2) return fail(p, "a key without a value");
    for (size_t i = 0; i < n; i++) DMC_TRY(append(p, container, items[i]));
    return DMC_OK;
}

static dmc_status extend_by(dmc_pickle *p, dmc_pickle_kind kind, size_t n)
{
    DMC_TRY(need(p, n + 1));
    p->n_stack -= n;
    return extend(p, kind, p->stack + p->n_stack, n);
}

static dmc_status extend_to_mark(dmc_pickle *p, dmc_pickle_kind kind)
{
    dmc_pickle_value **items = NULL;
    size_t n = 0;
    DMC_TRY(pop_to_mark(&items, &n, p));
    return extend(p, kind, items, n);
}

/* A tuple of the n topmost values. */
static dmc_status make_tuple(dmc_pickle *p, size_t n)
{
    dmc_pickle_value *v = NULL;
    DMC_TRY(need(p, n));
    DMC_TRY(take(&v, p, sizeof *v));
    v->kind = DMC_PICKLE_LIST;
    p->n_stack -= n;
    for (size_t i = 0; i < n; i++) DMC_TRY(append(p, v, p->stack[p->n_stack + i]));
    return push(p, v);
}

static dmc_status make_tuple_to_mark(dmc_pickle *p)
{
    if (p->n_marks == 0) return fail(p, "an instruction finds no mark");
    size_t n = above_mark(p);
    p->n_marks--;
    return make_tuple(p, n);
}

/* ---- calls ---- */

/* What a known name makes of its arguments. The result is a value of its own, even where it only hands on its first argument. */
static dmc_status make(dmc_pickle_value *out, dmc_pickle *p, const dmc_pickle_value *callee,
                       const dmc_pickle_value *arguments)
{
    const known_global *g = as_global(callee);
    const dmc_pickle_value *first = nth(arguments, 0);
    if (g && g->does == MAKES_TYPED) { /* one level: what it names must not be of this kind again */
        const dmc_pickle_value *inner = nth(arguments, 2);
        g = first ? as_global(first) : NULL;
        if (!g || g->does != MAKES_TENSOR || !inner) return fail(p, "a typed tensor that is none");
        return make_tensor(out, p, inner);
    }
    if (!g || arguments->kind != DMC_PICKLE_LIST) return fail(p, "a call of what cannot be called");
    switch (g->does) {
    case MAKES_DICT:
    case MAKES_NAMESPACE:
        if (first) break;
        *out = (dmc_pickle_value){.kind = DMC_PICKLE_DICT, .items.is_namespace = g->does == MAKES_NAMESPACE};
        return DMC_OK;
    case MAKES_TENSOR: return make_tensor(out, p, arguments);
    case MAKES_FIRST:
        if (!first || (first->kind != DMC_PICKLE_TENSOR && first->kind != DMC_PICKLE_LIST)) break;
        *out = *first;
        return DMC_OK;
    case MAKES_OPAQUE: *out = (dmc_pickle_value){.kind = DMC_PICKLE_OPAQUE}; return DMC_OK;
    case MAKES_TYPED:
    case IS_STORAGE: break;
    }
    return fail(p, "a call with the wrong arguments");
}

static dmc_status call(dmc_pickle *p)
{
    dmc_pickle_value made;
    DMC_TRY(need(p, 2));
    p->n_stack -= 2;
    DMC_TRY(make(&made, p, p->stack[p->n_stack], p->stack[p->n_stack + 1]));
    return push_new(p, made);
}

/* Gives the object below the topmost value its state: the attributes of a namespace. The rest has none that matters. */
static dmc_status build(dmc_pickle *p)
{
    DMC_TRY(need(p, 2));
    const dmc_pickle_value *state = p->stack[--p->n_stack];
    dmc_pickle_value *object = p->stack[p->n_stack - 1];
    if (object->kind == DMC_PICKLE_OPAQUE) return DMC_OK;
    if (object->kind != DMC_PICKLE_DICT) return fail(p, "a state for what has none");
    if (!object->items.is_namespace) return DMC_OK;
    if (state->kind != DMC_PICKLE_DICT || object->items.first) return fail(p, "attributes that are no dictionary");
    object->items.first = state->items.first; /* shared: a copy could be asked for over and over */
    object->items.last = state->items.last;
    return DMC_OK;
}

/* ---- the memo ---- */

static dmc_status put(dmc_pickle *p, uint64_t index)
{
    DMC_TRY(need(p, 1));
    if (index >= (uint64_t)(p->end - p->bytes)) return fail(p, "a memo beyond what the file can fill");
    if (index >= p->n_memo) {
        size_t n = 2 * (size_t)index + 64;
        dmc_pickle_value **grown = dmc_realloc(p->memo, n, sizeof(dmc_pickle_value *));
        if (!grown) return dmc_fail(DMC_ERR_MEMORY, "%s: out of memory for a pickle", p->where);
        memset(grown + p->n_memo, 0, (n - p->n_memo) * sizeof *grown);
        p->memo = grown;
        p->n_memo = n;
    }
    p->memo[index] = p->stack[p->n_stack - 1];
    p->n_puts++;
    return DMC_OK;
}

static dmc_status get(dmc_pickle *p, uint64_t index)
{
    if (index >= p->n_memo || !p->memo[index]) return fail(p, "a memo that nothing was put into");
    return push(p, p->memo[index]);
}

/* ---- instructions ---- */

static dmc_status push_int(dmc_pickle *p, int64_t value)
{
    return push_new(p, (dmc_pickle_value){.kind = DMC_PICKLE_INT, .integer = value});
}

static dmc_status push_real(dmc_pickle *p)
{
    const uint8_t *b = NULL;
    uint64_t bits = 0;
    double value;
    DMC_TRY(take_bytes(&b, p, 8));
    for (int i = 0; i < 8; i++) bits = bits << 8 | b[i];
    memcpy(&value, &bits, 8);
    return push_new(p, (dmc_pickle_value){.kind = DMC_PICKLE_REAL, .real = value});
}

/* An integer of any size; those beyond 64 bits are states of random generators. */
static dmc_status push_long(dmc_pickle *p)
{
    uint64_t n, value = 0;
    const uint8_t *b = NULL;
    DMC_TRY(take_number(&n, p, 1));
    DMC_TRY(take_bytes(&b, p, n));
    if (n > 8) return push_new(p, (dmc_pickle_value){.kind = DMC_PICKLE_OPAQUE});
    for (size_t i = 0; i < 8; i++) value |= (uint64_t)(i < n ? b[i] : n && b[n - 1] & 128 ? 255 : 0) << 8 * i;
    return push_int(p, (int64_t)value);
}

static dmc_status push_text(dmc_pickle *p, int length_bytes)
{
    dmc_pickle_text t = {0};
    DMC_TRY(take_text(&t, p, length_bytes));
    return push_new(p, (dmc_pickle_value){.kind = DMC_PICKLE_TEXT, .text = t});
}

static dmc_status push_bytes(dmc_pickle *p, int length_bytes)
{
    dmc_pickle_text t = {0};
    DMC_TRY(take_text(&t, p, length_bytes));
    return push_new(p, (dmc_pickle_value){.kind = DMC_PICKLE_OPAQUE});
}

static dmc_status push_mark(dmc_pickle *p)
{
    DMC_TRY(grow(&p->marks, &p->marks_room, p->n_marks, sizeof *p->marks, p));
    p->marks[p->n_marks++] = p->n_stack;
    return DMC_OK;
}

static dmc_status load_global(dmc_pickle *p)
{
    dmc_pickle_text module = {0}, name = {0};
    DMC_TRY(take_line(&module, p));
    DMC_TRY(take_line(&name, p));
    return push_global(p, module, name);
}

static dmc_status load_stack_global(dmc_pickle *p)
{
    DMC_TRY(need(p, 2));
    p->n_stack -= 2;
    const dmc_pickle_value *module = p->stack[p->n_stack], *name = p->stack[p->n_stack + 1];
    if (module->kind != DMC_PICKLE_TEXT || name->kind != DMC_PICKLE_TEXT) return fail(p, "a name that is no text");
    return push_global(p, module->text, name->text);
}

static dmc_status check_protocol(dmc_pickle *p)
{
    uint64_t version;
    DMC_TRY(take_number(&version, p, 1));
    if (version <= PROTOCOL_LIMIT) return DMC_OK;
    return dmc_fail(DMC_ERR_UNSUPPORTED, "%s: pickle protocol %d is not known (up to %d are)", p->where, (int)version,
                    (int)PROTOCOL_LIMIT);
}

static dmc_status stop(dmc_pickle *p)
{
    if (p->n_stack != 1 || p->n_marks || p->at != p->end) return fail(p, "it ends with something left over");
    p->root = p->stack[0];
    return DMC_OK;
}

/* Instructions whose operand is a little-endian number of so many bytes; 0: another one. */
static int number_bytes(uint8_t instruction)
{
    switch (instruction) {
    case 'K':
    case 'q':
    case 'h': return 1;
    case 'M': return 2;
    case 'J':
    case 'r':
    case 'j': return 4;
    case 0x95: return 8;
    default: return 0;
    }
}

static dmc_status step_with_number(dmc_pickle *p, uint8_t instruction)
{
    uint64_t n = 0;
    DMC_TRY(take_number(&n, p, number_bytes(instruction)));
    switch (instruction) {
    case 'K':                                 /* BININT1 */
    case 'M': return push_int(p, (int64_t)n); /* BININT2 */
    case 'J': return push_int(p, (int32_t)n); /* BININT */
    case 'q':
    case 'r': return put(p, n); /* BINPUT, LONG_BINPUT */
    case 'h':
    case 'j': return get(p, n); /* BINGET, LONG_BINGET */
    default: return n <= (uint64_t)(p->end - p->at) ? DMC_OK : fail(p, "a frame that is cut off"); /* FRAME */
    }
}

static dmc_status step(dmc_pickle *p, uint8_t instruction)
{
    if (number_bytes(instruction)) return step_with_number(p, instruction);
    switch (instruction) {
    case 0x80: return check_protocol(p);                                                          /* PROTO */
    case '.': return stop(p);                                                                     /* STOP */
    case '(': return push_mark(p);                                                                /* MARK */
    case 'N': return push_new(p, (dmc_pickle_value){.kind = DMC_PICKLE_NONE});                    /* NONE */
    case 0x88: return push_new(p, (dmc_pickle_value){.kind = DMC_PICKLE_BOOL, .boolean = true});  /* NEWTRUE */
    case 0x89: return push_new(p, (dmc_pickle_value){.kind = DMC_PICKLE_BOOL, .boolean = false}); /* NEWFALSE */
    case 0x8a: return push_long(p);                                                               /* LONG1 */
    case 'G': return push_real(p);                                                                /* BINFLOAT */
    case 0x8c: return push_text(p, 1);                                                            /* SHORT_BINUNICODE */
    case 'X': return push_text(p, 4);                                                             /* BINUNICODE */
    case 'C': return push_bytes(p, 1);                                                            /* SHORT_BINBYTES */
    case 'B': return push_bytes(p, 4);                                                            /* BINBYTES */
    case ')': return make_tuple(p, 0);                                                            /* EMPTY_TUPLE */
    case 0x85:
    case 0x86:
    case 0x87: return make_tuple(p, instruction - 0x84u);                      /* TUPLE1 to 3 */
    case 't': return make_tuple_to_mark(p);                                    /* TUPLE */
    case ']': return push_new(p, (dmc_pickle_value){.kind = DMC_PICKLE_LIST}); /* EMPTY_LIST */
    case 'a': return extend_by(p, DMC_PICKLE_LIST, 1);                         /* APPEND */
    case 'e': return extend_to_mark(p, DMC_PICKLE_LIST);                       /* APPENDS */
    case '}': return push_new(p, (dmc_pickle_value){.kind = DMC_PICKLE_DICT}); /* EMPTY_DICT */
    case 's': return extend_by(p, DMC_PICKLE_DICT, 2);                         /* SETITEM */
    case 'u': return extend_to_mark(p, DMC_PICKLE_DICT);                       /* SETITEMS */
    case 'c': return load_global(p);                                           /* GLOBAL */
    case 0x93: return load_stack_global(p);                                    /* STACK_GLOBAL */
    case 'Q': return load_storage(p);                                          /* BINPERSID */
    case 'R':
    case 0x81: return call(p);           /* REDUCE, NEWOBJ */
    case 'b': return build(p);           /* BUILD */
    case 0x94: return put(p, p->n_puts); /* MEMOIZE */
    default:
        return dmc_fail(DMC_ERR_UNSUPPORTED,
                        "%s: refused: instruction 0x%02x at byte %zu of the pickle is none that torch.save writes",
                        p->where, instruction, (size_t)(p->at - p->bytes) - 1);
    }
}

static dmc_status run(dmc_pickle *p)
{
    DMC_TRY(grow(&p->stack, &p->stack_room, 0, sizeof(dmc_pickle_value *), p)); /* it is pointed into from the start */
    while (!p->root) {
        const uint8_t *instruction = NULL;
        DMC_TRY(take_bytes(&instruction, p, 1));
        DMC_TRY(step(p, *instruction));
    }
    return DMC_OK;
}

/* ---- the outside ---- */

dmc_status dmc_pickle_parse(dmc_pickle **out, const void *bytes, size_t n, const dmc_zip *zip, dmc_pickle_text prefix,
                            const char *where)
{
    dmc_pickle *p;
    *out = NULL;
    if (n > PICKLE_LIMIT)
        return dmc_fail(DMC_ERR_FORMAT, "%s: a pickle of %zu bytes; at most %d are read", where, n, (int)PICKLE_LIMIT);
    DMC_TRY(dmc_array(&p, 1, sizeof *p));
    p->bytes = p->at = bytes;
    p->end = p->at + n;
    p->zip = zip;
    p->prefix = prefix;
    p->where = where;
    dmc_status status = run(p);
    if (status == DMC_OK) *out = p;
    else dmc_pickle_close(p);
    return status;
}

/* The one entry 'NAME/data.pkl'; *prefix becomes NAME. */
static dmc_status find_pickle(const dmc_zip_entry **out, dmc_pickle_text *prefix, const dmc_zip *zip)
{
    static const char tail[] = "/data.pkl";
    const size_t n = sizeof tail - 1;
    *out = NULL;
    for (size_t i = 0; i < dmc_zip_count(zip); i++) {
        const dmc_zip_entry *e = dmc_zip_at(zip, i);
        if (e->name_bytes <= n || memcmp(e->name + e->name_bytes - n, tail, n) != 0 ||
            memchr(e->name, '/', e->name_bytes - n))
            continue;
        if (*out) return dmc_fail(DMC_ERR_FORMAT, "%s: holds several data.pkl", dmc_zip_where(zip));
        *out = e;
        *prefix = (dmc_pickle_text){e->name, e->name_bytes - n};
    }
    if (*out) return DMC_OK;
    return dmc_fail(DMC_ERR_FORMAT, "%s: a zip archive without data.pkl: torch.save did not write it",
                    dmc_zip_where(zip));
}

dmc_status dmc_pickle_open(dmc_pickle **out, dmc_zip *zip)
{
    const dmc_zip_entry *pickle, *order;
    dmc_pickle_text prefix;
    char name[256];
    *out = NULL;
    DMC_TRY(find_pickle(&pickle, &prefix, zip));
    int n = snprintf(name, sizeof name, "%.*s/byteorder", (int)prefix.n, prefix.s);
    order = n > 0 && (size_t)n < sizeof name ? dmc_zip_find(zip, name, (size_t)n) : NULL;
    if (order && (order->bytes != 6 || memcmp(order->data, "little", 6) != 0))
        return dmc_fail(DMC_ERR_UNSUPPORTED, "%s: its numbers are not little-endian; save it again on such a machine",
                        dmc_zip_where(zip));
    DMC_TRY(dmc_zip_check(zip, pickle));
    return dmc_pickle_parse(out, pickle->data, pickle->bytes, zip, prefix, dmc_zip_where(zip));
}

void dmc_pickle_close(dmc_pickle *p)
{
    if (!p) return;
    for (block *b = p->blocks, *next; b; b = next) {
        next = b->next;
        dmc_free(b);
    }
    dmc_free(p->stack);
    dmc_free(p->memo);
    dmc_free(p->marks);
    dmc_free(p);
}

const dmc_pickle_value *dmc_pickle_root(const dmc_pickle *p) { return p->root; }
size_t dmc_pickle_members(const dmc_pickle *p) { return p->n_members; }

bool dmc_pickle_equals(const dmc_pickle_value *v, const char *text)
{
    return v && v->kind == DMC_PICKLE_TEXT && is(v->text, text);
}

const dmc_pickle_value *dmc_pickle_get(const dmc_pickle_value *v, const char *key)
{
    const dmc_pickle_value *found = NULL;
    if (!v || v->kind != DMC_PICKLE_DICT) return NULL;
    for (const dmc_pickle_item *i = v->items.first; i && i->next; i = i->next->next)
        if (dmc_pickle_equals(i->value, key)) found = i->next->value;
    return found;
}
