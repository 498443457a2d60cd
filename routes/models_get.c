/*
 * GET /v1/models/{id}; ids may hold slashes, escaped or not. Answers for every name that a chat would be taken for, with
 * the name that was asked for as id. On the loop of the connection.
 */
#include "routes/route.h"

#include "llm/inventory.h"
#include "routes/auth.h"
#include "routes/model_json.h"

const struct agent *model_find(const struct agents *l, struct slice id)
{
	for (size_t i = 0; i < l->n; i++)
		if (slice_eq(slice_str(l->v[i].slug), id) && agent_is_listed(l, i))
			return &l->v[i];
	return NULL;
}

static enum errc unknown(struct slice id, struct err *e)
{
	return err_set_param(e, E_MODEL_NOT_FOUND, "model", "The model `" SLICE_FMT "` does not exist or you do not have access to it.",
			     SLICE_ARG(slice_cut_text(id, 128)));
}

static enum errc find(struct req *q, const struct agents *l, struct slice id, const struct agent **ret, struct err *e)
{
	const struct agent *found[AGENT_CANDIDATES_MAX];
	size_t n = 0;
	enum errc rc;

	*ret = model_find(l, id);
	if (!*ret) {
		rc = agents_resolve(l, id, found, &n, e);
		if (rc)
			return rc;
		must(n > 0);
		*ret = found[0];
	}
	if (!auth_allows_model(q->ctx->svc->auth, q->key_id, id))
		return unknown(id, e);
	return E_OK;
}

enum errc route_models_get(struct req *q, struct reply *rep, struct err *e)
{
	struct agents *l = inventory_get(q->ctx->svc->inventory);
	struct slice id = slice_str(q->arg[0]);
	struct jw w = JW(&rep->body);
	const struct agent *a = NULL;
	enum errc rc = find(q, l, id, &a, e);

	if (!rc) {
		model_json(&w, a, id);
		rc = jw_done(&w, e);
	}
	agents_unref(l);
	return rc;
}
