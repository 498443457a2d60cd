/*
 * The tree: the only door to cJSON. Called for what must be looked at (request fields, config.json, repaired chunks).
 * A struct json is a cJSON node under another name. Threads: any; a tree by one at a time.
 *
 * cJSON sees only text that the scanner has passed. What it would misread all the same is rewritten in a copy first, at
 * equal length: \u0000 (it would cut the string, and a name could pose as another) and halves of surrogate pairs (it
 * refuses them) become \ufffd, numbers too long for it become short ones followed by blanks.
 *
 * Nodes and strings of a tree lie in blocks of its own, one after the other: a small tree is one allocation instead of three a
 * value, and is freed without a walk.
 */
#include "base/json.h"

#include "base/json_scan.h"
#include "base/jw.h"
#include "base/mem.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <stdalign.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

static const cJSON *node_of(const struct json *j)
{
	return (const cJSON *)(const void *)j;
}

static const struct json *json_of(const cJSON *node)
{
	return (const struct json *)(const void *)node;
}

/* ---- memory ---- */

#define BLOCK_MAX	(64u << 10)    /* larger only for one string that is */
#define BYTES_A_BYTE	6              /* of tree for one of text, roughly: a node has 64 and stands for a dozen */
#ifdef __SANITIZE_ADDRESS__
#define IS_SHARED	false          /* each has a block of its own, so that nothing is read beyond its end */
#else
#define IS_SHARED	true
#endif

struct block {
	struct block *next;
	size_t used, cap;
	alignas(max_align_t) char p[];
};

static _Thread_local struct block *making;     /* the last block of the tree that this thread is just making */

static struct block *block_new(size_t cap)
{
	struct block *b = mem_alloc(sizeof(*b) + cap);

	if (b)
		*b = (struct block){ .cap = cap };
	return b;
}

static void blocks_free(struct block *b)
{
	while (b) {
		struct block *next = b->next;

		mem_free(b);
		b = next;
	}
}

static void *tree_alloc(size_t n)
{
	const size_t align = alignof(max_align_t);
	struct block *b = making;

	must(b);
	n = (n + align - 1) / align * align;
	if (n > b->cap - b->used || (b->used && !IS_SHARED)) {
		b = block_new(IS_SHARED && n <= BLOCK_MAX / 2 ? BLOCK_MAX : n);
		if (!b)
			return NULL;
		making->next = b;
		making = b;
	}
	b->used += n;
	return b->p + b->used - n;
}

static void tree_forget(void *p)
{
	(void)p;
}

/* Before main and any thread: cJSON keeps its hooks in a variable of its own. */
static void __attribute__((constructor)) use_our_memory(void)
{
	cJSON_Hooks hooks = { .malloc_fn = tree_alloc, .free_fn = tree_forget };

	cJSON_InitHooks(&hooks);
}

/* The root is what lies in the first block first: json_free finds the blocks by it. NULL: no memory. */
static cJSON *make_tree(struct slice text)
{
	size_t guess = text.n < BLOCK_MAX / BYTES_A_BYTE ? sizeof(cJSON) + text.n * BYTES_A_BYTE : BLOCK_MAX;
	struct block *first = block_new(guess);
	cJSON *tree;

	if (!first)
		return NULL;
	making = first;
	tree = cJSON_ParseWithLengthOpts(text.p, text.n, NULL, 0);
	making = NULL;
	must(!tree || (char *)tree == first->p);
	if (!tree)
		blocks_free(first);
	return tree;
}

void json_free(struct json *j)
{
	if (j)
		blocks_free(CONTAINER_OF((char (*)[])(void *)j, struct block, p));
}

/* ---- text that cJSON would misread ---- */

/* Rewrite the odd escapes of the string that begins at p; gives the place behind its closing quote. */
static char *tame_string(char *p, const char *end)
{
	uint32_t code;

	for (p++; *p != '"';) {
		if (*p != '\\') {
			p++;
			continue;
		}
		size_t n = json_read_escape(p, end, &code);

		if (code == 0 || (code >= 0xD800 && code <= 0xDFFF))
			memcpy(p, "\\ufffd", 6);
		p += n;
	}
	return p + 1;
}

static char *tame_number(char *p)
{
	char text[32];
	char *begin = p;

	while ((*p >= '0' && *p <= '9') || *p == '-' || *p == '+' || *p == '.' || *p == 'e' || *p == 'E')
		p++;
	if (p - begin <= JSON_LONG_NUMBER)
		return p;
	double v = strtod(begin, NULL);
	int n = isfinite(v) ? snprintf(text, sizeof(text), "%.17g", v) : snprintf(text, sizeof(text), v > 0 ? "1e999" : "-1e999");

	memset(begin, ' ', (size_t)(p - begin));
	memcpy(begin, text, (size_t)n);
	return p;
}

/* text is checked and NUL-terminated, so nothing here looks for the end. */
static void tame(char *text, size_t n)
{
	char *p = text;

	while (p < text + n) {
		if (*p == '"')
			p = tame_string(p, text + n);
		else if (*p == '-' || (*p >= '0' && *p <= '9'))
			p = tame_number(p);
		else
			p++;
	}
}

enum errc json_parse(struct slice text, struct json_limits lim, struct json **ret, struct err *e)
{
	AUTO_FREE char *copy = NULL;
	struct json_scan s;
	enum errc rc = json_scan_text(text, lim, &s, e);

	if (rc)
		return rc;
	if (s.values > JSON_TREE_MAX_VALUES)
		return err_set(e, E_TOO_LARGE, "JSON text: %zu of at most %u values", s.values, JSON_TREE_MAX_VALUES);
	text = json_skip_bom(text); /* cJSON would, but not in front of a single character */
	if (s.is_odd) {
		copy = slice_dup(text);
		if (!copy)
			return err_set(e, E_NO_MEMORY, "no memory for %zu bytes of JSON", text.n);
		tame(copy, text.n);
		text.p = copy;
	}
	cJSON *tree = make_tree(text);

	if (!tree)
		return err_set(e, E_NO_MEMORY, "no memory for the tree of %zu bytes of JSON", text.n);
	*ret = (struct json *)(void *)tree;
	return E_OK;
}

void json_auto_free(struct json **j)
{
	json_free(*j);
}

/* ---- looking at it ---- */

bool json_is_object(const struct json *j) { return cJSON_IsObject(node_of(j)); }
bool json_is_array(const struct json *j) { return cJSON_IsArray(node_of(j)); }
bool json_is_string(const struct json *j) { return cJSON_IsString(node_of(j)); }
bool json_is_number(const struct json *j) { return cJSON_IsNumber(node_of(j)); }
bool json_is_bool(const struct json *j) { return cJSON_IsBool(node_of(j)); }
bool json_is_null(const struct json *j) { return cJSON_IsNull(node_of(j)); }
bool json_is_true(const struct json *j) { return cJSON_IsTrue(node_of(j)); }
bool json_is_absent(const struct json *j) { return !j || json_is_null(j); }

const struct json *json_first(const struct json *container)
{
	return json_is_object(container) || json_is_array(container) ? json_of(node_of(container)->child) : NULL;
}

const struct json *json_next(const struct json *item)
{
	return item ? json_of(node_of(item)->next) : NULL;
}

const char *json_key(const struct json *member)
{
	return member ? node_of(member)->string : NULL;
}

const struct json *json_get(const struct json *obj, const char *key)
{
	const struct json *found = NULL;

	if (!json_is_object(obj))
		return NULL;
	for (const struct json *m = json_first(obj); m; m = json_next(m))
		if (strcmp(json_key(m), key) == 0)
			found = m;
	return found;
}

const struct json *json_at(const struct json *arr, size_t i)
{
	const struct json *item = json_is_array(arr) ? json_first(arr) : NULL;

	while (item && i--)
		item = json_next(item);
	return item;
}

size_t json_count(const struct json *container)
{
	size_t n = 0;

	for (const struct json *item = json_first(container); item; item = json_next(item))
		n++;
	return n;
}

const char *json_str(const struct json *j)
{
	return json_is_string(j) ? node_of(j)->valuestring : NULL;
}

struct slice json_slice(const struct json *j)
{
	return slice_str(json_str(j));
}

double json_num(const struct json *j, double fallback)
{
	return json_is_number(j) ? node_of(j)->valuedouble : fallback;
}

bool json_i64(const struct json *j, int64_t *ret_v)
{
	const double max = 9007199254740992.0; /* 2^53 */
	double v = json_num(j, NAN);

	if (!(v >= -max && v <= max) || v != trunc(v))
		return false;
	*ret_v = (int64_t)v;
	return true;
}

const char *json_type_name(const struct json *j)
{
	if (!j)
		return "absent";
	if (json_is_object(j))
		return "object";
	if (json_is_array(j))
		return "array";
	if (json_is_string(j))
		return "string";
	if (json_is_number(j))
		return "number";
	return json_is_bool(j) ? "boolean" : "null";
}

static void write_scalar(struct jw *w, const char *key, const struct json *j)
{
	if (json_is_string(j))
		jw_str(w, key, json_str(j));
	else if (json_is_number(j))
		jw_f64(w, key, json_num(j, 0));
	else if (json_is_bool(j))
		jw_bool(w, key, json_is_true(j));
	else
		jw_null(w, key);
}

/* The writer's 63 levels bound the recursion: past them its error sticks and nothing descends any more. */
void jw_tree(struct jw *w, const char *key, const struct json *tree)
{
	bool is_object = json_is_object(tree);

	if (w->err.code)
		return;
	if (!is_object && !json_is_array(tree)) {
		write_scalar(w, key, tree);
		return;
	}
	if (is_object)
		jw_obj(w, key);
	else
		jw_arr(w, key);
	for (const struct json *item = json_first(tree); item; item = json_next(item))
		jw_tree(w, is_object ? json_key(item) : NULL, item);
	jw_end(w);
}
