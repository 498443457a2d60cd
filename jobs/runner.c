/* The table of runners, and the lines of a plan. Called by the supervisor and the capability probe. */
#include "jobs/runner.h"

#include "jobs/capabilities.h"

const struct runner_ops *const runner_table[] = {
#define RUNNER(id) &runner_##id,
#include "jobs/runners.def"
#undef RUNNER
};
const size_t runner_count = ARRAY_LEN(runner_table);

const struct runner_ops *runner_find(struct slice job_type)
{
	for (size_t i = 0; i < runner_count; i++)
		if (slice_eq(job_type, slice_str(runner_table[i]->job_type)))
			return runner_table[i];
	return NULL;
}

bool capabilities_has_type(const struct capabilities *c, struct slice job_type)
{
	(void)c;                               /* no runner that is built needs anything yet */
	return runner_find(job_type) != NULL;
}

enum errc run_plan_add(struct run_plan *p, const char *key, struct slice value, struct err *e)
{
	enum errc rc;

	if (memchr(value.p, '\0', value.n))
		return err_set(e, E_BAD_REQUEST, "%s: a NUL inside", key);
	rc = buf_addf(&p->spec, e, "%s=", key);
	if (!rc)
		rc = buf_add_slice(&p->spec, value, e);
	return rc ? rc : buf_add(&p->spec, "", 1, e);
}

enum errc run_plan_add_i64(struct run_plan *p, const char *key, int64_t value, struct err *e)
{
	enum errc rc = buf_addf(&p->spec, e, "%s=%lld", key, (long long)value);

	return rc ? rc : buf_add(&p->spec, "", 1, e);
}
