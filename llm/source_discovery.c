/*
 * Runners that nobody named: the usual loopback ports, asked for /v1/models with a short limit, quietly absent
 * otherwise. What an entry of config.json or the Ollama source has is not asked a second time, and our own listener
 * never: asking it would ask ourselves. Ollama's usual port is looked at when the Ollama source looks elsewhere; with
 * that source off it is not, because "no Ollama" means none.
 */
#include <inttypes.h>
#include <stdio.h>

#include "llm/place.h"
#include "llm/source.h"

#define OLLAMA_PORT 11434

static bool is_at(const char *url, int64_t port)
{
	struct place at;

	return place_parse(slice_str(url), &at) && at.port == port && place_is_loopback(&at);
}

static bool is_taken(const struct config *cfg, int64_t port)
{
	if (port == cfg->listen_port || (cfg->ollama_source && is_at(cfg->ollama_base_url, port)))
		return true;
	for (size_t i = 0; cfg->upstreams_source && i < cfg->upstream_count; i++)
		if (is_at(cfg->upstreams[i].base_url, port))
			return true;
	return false;
}

static size_t add_port(const struct config *cfg, int64_t port, int64_t *out, size_t n, size_t max)
{
	for (size_t i = 0; i < n; i++)
		if (out[i] == port)
			return n;
	if (n < max && !is_taken(cfg, port))
		out[n++] = port;
	return n;
}

size_t source_discovery_ports(const struct config *cfg, int64_t *out, size_t max)
{
	size_t n = 0;

	for (size_t i = 0; i < cfg->discovery_ports.n; i++) {
		int64_t port;

		if (slice_to_i64(slice_trim(slice_str(cfg->discovery_ports.v[i])), 1, 65535, &port))
			n = add_port(cfg, port, out, n, max);
	}
	return cfg->ollama_source ? add_port(cfg, OLLAMA_PORT, out, n, max) : n;
}

enum errc source_discovery_new(const struct source_base *b, int64_t port, struct source_part **ret, struct err *e)
{
	char name[32], url[48];
	struct source_runner_spec s = {
		.source = AGENT_FROM_DISCOVERED, .name = name, .base_url = url, .kind = UPSTREAM_OPENAI, .models_path = "/v1/models",
		.is_quiet = true,
	};

	snprintf(name, sizeof(name), "127.0.0.1:%" PRId64, port);
	snprintf(url, sizeof(url), "http://127.0.0.1:%" PRId64 "/v1", port);
	return source_runner_new(b, &s, ret, e);
}
