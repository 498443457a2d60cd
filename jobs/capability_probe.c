/* What this machine has; see capability_probe.h. Made by server/app_boot.c, and by commands that look once. */
#include "jobs/capability_probe.h"

#include "base/config.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/proc.h"
#include "base/thread.h"

#include <stdio.h>
#include <string.h>

#define OUTPUT_MAX (512u * 1024)
#define ENV_MAX 8

enum { GPU_LIST, GPU_CUDA, DOCKER, BLENDER, FFMPEG, COMMANDS };

static const char *const commands[COMMANDS][5] = {
	[GPU_LIST] = { "nvidia-smi", "--query-gpu=index,name,memory.total,driver_version,compute_cap", "--format=csv,noheader,nounits" },
	[GPU_CUDA] = { "nvidia-smi" },
	[DOCKER] = { "docker", "info", "--format", "{{json .Runtimes}}" },
	[BLENDER] = { "blender", "--version" },
	[FFMPEG] = { "ffmpeg", "-version" },
};

struct asking {
	struct capability_probe *p;
	int command;
	struct proc *proc;
};

struct capability_probe {
	struct capability_probe_opts o;
	struct loop_timer timer;
	struct asking asking[COMMANDS];
	unsigned pending;
	struct capabilities fresh;         /* THREAD(supervisor): the round in progress */
	struct mutex mu;
	struct capabilities now;           /* GUARDED_BY(mu) */
	bool is_known;                     /* GUARDED_BY(mu) */
};

/* ---- publishing ---- */

static void publish(struct capability_probe *p)
{
	bool is_news;

	capability_settle(&p->fresh);
	mutex_lock(&p->mu);
	is_news = !p->is_known || memcmp(&p->now, &p->fresh, sizeof(p->now)) != 0;
	p->now = p->fresh;
	p->is_known = true;
	mutex_unlock(&p->mu);
	if (is_news)
		log_event(LOG_DEBUG, "capabilities.published", "gpus=%u docker=%d docker_nvidia=%d blender=%d ffmpeg=%d", p->fresh.gpu_count,
			  p->fresh.docker.status == CAPABILITY_AVAILABLE, p->fresh.has_docker_nvidia, p->fresh.has_blender,
			  p->fresh.ffmpeg.status == CAPABILITY_AVAILABLE);
}

void capability_read(struct capability_probe *p, struct capabilities *ret, bool *ret_is_known)
{
	MUTEX_SCOPE(&p->mu);
	*ret = p->now;
	if (ret_is_known)
		*ret_is_known = p->is_known;
}

/* ---- asking ---- */

static void ask(struct capability_probe *p, int command);

static void take(struct capability_probe *p, int command, struct slice out, struct slice err)
{
	struct capabilities *c = &p->fresh;

	switch (command) {
	case GPU_LIST:
		capability_read_gpus(c, out);
		if (c->gpu_status == CAPABILITY_AVAILABLE)
			ask(p, GPU_CUDA);
		break;
	case GPU_CUDA:
		capability_read_cuda(c, out.n ? out : err);
		break;
	case DOCKER:
		capability_read_docker(c, out);
		break;
	case BLENDER:
		capability_read_version(&c->blender, out, SLICE("Blender"));
		break;
	default:
		capability_read_version(&c->ffmpeg, out, SLICE("ffmpeg version"));
		break;
	}
}

static void refuse(struct capability_probe *p, int command, struct slice text)
{
	struct capabilities *c = &p->fresh;
	struct capability_software gpu = { 0 };

	switch (command) {
	case GPU_LIST:
		capability_failed(&gpu, text);
		c->gpu_status = gpu.status;
		memcpy(c->gpu_message, gpu.message, sizeof(c->gpu_message));
		break;
	case GPU_CUDA:                         /* the version stays unknown */
		break;
	case DOCKER:
		capability_failed(&c->docker, text);
		capability_failed(&c->docker_nvidia, text);
		break;
	case BLENDER:
		capability_failed(&c->blender, text);
		break;
	default:
		capability_failed(&c->ffmpeg, text);
		break;
	}
}

static void ended(struct capability_probe *p)
{
	if (--p->pending > 0)
		return;
	publish(p);
	loop_timer_set(p->o.loop, &p->timer, loop_now_ms(p->o.loop) + p->o.every_ms);
}

static void on_ran(void *ctx, const struct proc_result *r)
{
	struct asking *a = ctx;
	struct capability_probe *p = a->p;
	char text[64];

	a->proc = NULL;
	if (r->rc == E_OK) {
		take(p, a->command, r->out, r->err);
	} else {
		if (r->rc == E_NOT_FOUND)
			snprintf(text, sizeof(text), "spawn %s ENOENT", commands[a->command][0]);
		refuse(p, a->command, slice_str(r->rc == E_NOT_FOUND ? text : r->e.what));     /* that has the last of stderr */
	}
	ended(p);
}

static void make_env(char *env[ENV_MAX])
{
	static const char *const names[] = { "PATH", "HOME", "LANG", "XDG_RUNTIME_DIR", "DOCKER_HOST", "LD_LIBRARY_PATH" };
	size_t n = 0;

	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		AUTO_BUF line = BUF_MAX(64 * 1024);
		const char *value = config_env(names[i]);

		if (value && !buf_addf(&line, NULL, "%s=%s", names[i], value) && (env[n] = buf_take(&line, NULL)))
			n++;
	}
}

static void ask(struct capability_probe *p, int command)
{
	struct asking *a = &p->asking[command];
	char *env[ENV_MAX] = { 0 };
	struct proc_req q = { .argv = commands[command], .env = (const char *const *)env, .limit_ms = p->o.limit_ms, .max_out_bytes = OUTPUT_MAX,
			      .done = on_ran, .ctx = a };
	struct err e = { 0 };

	make_env(env);
	*a = (struct asking){ .p = p, .command = command };
	p->pending++;
	if (proc_start(p->o.loop, &q, &a->proc, &e)) {
		refuse(p, command, slice_str(e.what));
		p->pending--;
	}
	for (size_t i = 0; i < ENV_MAX; i++)
		mem_free(env[i]);
}

static void on_timer(struct loop_timer *t)
{
	struct capability_probe *p = CONTAINER_OF(t, struct capability_probe, timer);

	memset(&p->fresh, 0, sizeof(p->fresh));        /* padding too: rounds are compared */
	p->pending = 1;                        /* ours, so that the last word comes after the last question */
	ask(p, GPU_LIST);
	ask(p, DOCKER);
	ask(p, BLENDER);
	ask(p, FFMPEG);
	ended(p);
}

void capability_probe_start(struct capability_probe *p)
{
	p->timer.fn = on_timer;
	if (p->o.is_off)
		publish(p);
	else
		loop_timer_set(p->o.loop, &p->timer, loop_now_ms(p->o.loop));
}

void capability_probe_stop(struct capability_probe *p)
{
	loop_timer_cancel(p->o.loop, &p->timer);
	for (int i = 0; i < COMMANDS; i++)
		if (p->asking[i].proc)
			proc_cancel(TAKE(p->asking[i].proc));
}

enum errc capability_probe_new(const struct capability_probe_opts *o, struct capability_probe **ret, struct err *e)
{
	struct capability_probe *p = NEW(struct capability_probe);

	if (!p)
		return err_set(e, E_NO_MEMORY, "no memory");
	p->o = *o;
	mutex_init(&p->mu);
	*ret = p;
	return E_OK;
}

void capability_probe_free(struct capability_probe *p)
{
	if (!p)
		return;
	capability_probe_stop(p);
	mutex_done(&p->mu);
	mem_free(p);
}
