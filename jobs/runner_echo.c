/*
 * tenant.test-echo: says its message as often as asked. It runs as a process under the shim like every other job, so that
 * the whole way is real: a shell prints the message as one line of JSON, which is read back into the event.
 * Source: jobs-and-capabilities.md 1.4.
 */
#include "jobs/journal.h"

#include <math.h>
#include <stdio.h>

#define REPEAT_MAX 20
#define DELAY_MAX_MS 30000

/* $1 what to print, $2 how often, $3 seconds before each, $4 "fail". */
static const char script[] =
	"[ \"$4\" != fail ] || exit 1\n"
	"i=0\n"
	"while [ \"$i\" -lt \"$2\" ]; do\n"
	"[ \"$3\" = 0.000 ] || sleep \"$3\"\n"
	"printf '%s\\n' \"$1\"\n"
	"i=$((i + 1))\n"
	"done";

struct echo {
	struct slice message;           /* borrowed */
	int64_t repeat, delay_ms;
	bool is_failing;
};

/* As JavaScript's Number(): null 0, true 1, a string by its text. What is none gives the fallback. */
static double number(const struct json *v, double fallback)
{
	double d = fallback;

	if (!v)
		return fallback;
	if (json_is_null(v))
		return 0;
	if (json_is_bool(v))
		return json_is_true(v);
	if (json_is_number(v))
		return json_num(v, fallback);
	if (json_is_string(v)) {
		struct slice s = slice_trim_js(json_slice(v));

		if (!s.n)
			return 0;
		return slice_to_f64(s, &d) ? d : fallback;
	}
	return fallback;
}

static int64_t clamped(double v, int64_t lo, int64_t hi)
{
	double d = floor(v);

	if (!(d > (double)lo))
		return lo;
	return d < (double)hi ? (int64_t)d : hi;
}

static struct echo read_args(const struct json *job)
{
	const struct json *args = json_get(job, "args"), *message = json_get(args, "message");
	struct echo a = { .message = json_is_string(message) ? slice_trim_js(json_slice(message)) : slice_of("", 0) };

	if (!a.message.n)
		a.message = SLICE("ok");
	a.repeat = clamped(number(json_get(args, "repeat"), 1), 1, REPEAT_MAX);
	a.delay_ms = clamped(number(json_get(args, "delay_ms"), 0), 0, DELAY_MAX_MS);
	a.is_failing = json_is_true(json_get(args, "fail"));
	return a;
}

static enum errc plan(const struct json *job, struct run_plan *p, struct err *e)
{
	struct echo a = read_args(job);
	AUTO_BUF quoted = BUF_MAX(8u << 20);
	struct jw w = JW(&quoted);
	char repeat[24], delay[32];
	enum errc rc;

	snprintf(repeat, sizeof(repeat), "%lld", (long long)a.repeat);
	snprintf(delay, sizeof(delay), "%lld.%03lld", (long long)(a.delay_ms / 1000), (long long)(a.delay_ms % 1000));
	jw_slice(&w, NULL, a.message);
	rc = jw_done(&w, e);
	if (!rc && quoted.n >= LINE_MAX_BYTES)         /* as one line of output, and one argument of a program */
		rc = err_set(e, E_BAD_REQUEST, "args.message: %zu bytes as JSON, at most %u", quoted.n, LINE_MAX_BYTES - 1);
	const struct slice argv[] = { SLICE("/bin/sh"), SLICE("-c"), slice_of(script, sizeof(script) - 1), SLICE("sh"), buf_slice(&quoted),
				      slice_str(repeat), slice_str(delay), a.is_failing ? SLICE("fail") : SLICE("") };

	for (size_t i = 0; !rc && i < ARRAY_LEN(argv); i++)
		rc = run_plan_add(p, "arg", argv[i], e);
	return rc ? rc : run_plan_add(p, "env", SLICE("PATH=/usr/bin:/bin"), e);
}

static enum errc line(const struct json *job, const struct output_line *l, struct events *out, struct err *e)
{
	struct echo a = read_args(job);
	AUTO_BUF message = BUF_MAX(8u << 20);
	char data[120];
	struct err ignored;
	enum errc rc;

	if (l->stream != EVENT_STDOUT)
		return events_add(out, l->stream, l->pos, l->wall_ms, l->text, SLICE("{\"runner\":\"test.echo\"}"), e);
	snprintf(data, sizeof(data), "{\"runner\":\"test.echo\",\"index\":%lld,\"repeat\":%lld}", (long long)l->index, (long long)a.repeat);
	if (json_unquote(l->text, &message, &ignored)) {
		buf_clear(&message);
		rc = buf_add_slice(&message, l->text, e);
		if (rc)
			return rc;
	}
	rc = events_add(out, EVENT_STDOUT, l->pos, l->wall_ms, message.p ? buf_slice(&message) : SLICE(""), slice_str(data), e);
	if (rc || l->index + 1 != a.repeat)
		return rc;
	snprintf(data, sizeof(data), "{\"completed\":%lld,\"total\":%lld}", (long long)a.repeat, (long long)a.repeat);
	return events_add(out, EVENT_PROGRESS, l->pos + 1, l->wall_ms, SLICE("echo complete"), slice_str(data), e);
}

static enum errc judge(const struct json *job, const struct run_exit *x, struct run_result *ret, struct err *e)
{
	struct echo a = read_args(job);
	struct jw w = JW(&ret->metrics);

	if (x->code != 0) {
		ret->code = "runner_error";
		if (!a.is_failing || x->code != 1)
			snprintf(ret->message, sizeof(ret->message), "test.echo ended with code %lld", (long long)x->code);
		else if (!slice_copy(slice_cut(a.message, sizeof(ret->message) - 1), ret->message, sizeof(ret->message)))
			snprintf(ret->message, sizeof(ret->message), "test.echo failed as asked");
		return E_OK;
	}
	ret->is_success = true;
	jw_obj(&w, NULL);
	jw_str(&w, "runner", "test.echo");
	jw_i64(&w, "echoed", a.repeat);
	jw_slice(&w, "message", a.message);
	jw_end(&w);
	return jw_done(&w, e);
}

const struct runner_ops runner_echo = {
	.job_type = "tenant.test-echo", .name = "test.echo", .doc = "Says its message as often as asked", .sandbox = "owner-local-process",
	.is_idempotent = true, .plan = plan, .line = line, .judge = judge,
};
