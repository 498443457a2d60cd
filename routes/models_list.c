/*
 * GET /v1/models. The body is made once per snapshot of the inventory and loop; a request copies it. Only for keys that
 * are limited to some models it is made anew. On the loop of the connection.
 */
#include "routes/route.h"

#include "llm/inventory.h"
#include "routes/auth.h"
#include "routes/model_json.h"

#define BODY_MAX (16u << 20)

void model_json(struct jw *w, const struct agent *a, struct slice id)
{
	jw_obj(w, NULL);
	jw_slice(w, "id", id);
	jw_str(w, "object", "model");
	jw_i64(w, "created", a->created_s);
	jw_str(w, "owned_by", "local");
	jw_end(w);
}

void models_cache_done(struct models_cache *c)
{
	buf_done(&c->body);
	c->is_filled = false;
}

/* key_id: list what this key may use; NULL: all. */
static enum errc write_list(struct buf *out, const struct agents *l, struct auth *auth, const char *key_id, struct err *e)
{
	struct jw w = JW(out);

	jw_obj(&w, NULL);
	jw_str(&w, "object", "list");
	jw_arr(&w, "data");
	for (size_t i = 0; i < l->n; i++) {
		struct slice slug = slice_str(l->v[i].slug);

		if (agent_is_listed(l, i) && (!key_id || auth_allows_model(auth, key_id, slug)))
			model_json(&w, &l->v[i], slug);
	}
	jw_end(&w);
	jw_end(&w);
	return jw_done(&w, e);
}

static enum errc fill_cache(struct models_cache *c, const struct agents *l, struct err *e)
{
	enum errc rc;

	if (c->is_filled && c->revision == l->revision)
		return E_OK;
	c->is_filled = false;
	c->body.max = BODY_MAX;
	buf_clear(&c->body);
	rc = write_list(&c->body, l, NULL, NULL, e);
	c->is_filled = !rc;
	c->revision = l->revision;
	return rc;
}

enum errc route_models_list(struct req *q, struct reply *rep, struct err *e)
{
	struct svc *svc = q->ctx->svc;
	struct models_cache *c = &q->ctx->models;
	struct agents *l = inventory_get(svc->inventory);
	enum errc rc;

	if (auth_limits_models(svc->auth, q->key_id)) {
		rc = write_list(&rep->body, l, svc->auth, q->key_id, e);
	} else {
		rc = fill_cache(c, l, e);
		if (!rc)
			rc = buf_add_slice(&rep->body, buf_slice(&c->body), e);
	}
	agents_unref(l);
	return rc;
}
