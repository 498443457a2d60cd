/*
 * Words that every file of the node may use: attributes, scope cleanup, small macros.
 * Nothing here allocates, blocks or has state.
 */
#ifndef MSWARM_BASE_ATTR_H
#define MSWARM_BASE_ATTR_H

#include <stddef.h>

#define MUST_CHECK	__attribute__((warn_unused_result))
#define PRINTF_LIKE(fmt, args) __attribute__((format(printf, fmt, args)))
#define CLEANUP(fn)	__attribute__((cleanup(fn)))

/* Documentation only: the thread that may call or touch a thing, and the mutex that guards it. Checked by
 * thread_must_be() and mutex_must_hold() in base/thread.h. */
#define THREAD(role)
#define GUARDED_BY(mu)

#define ARRAY_LEN(a)	(sizeof(a) / sizeof((a)[0]))

#define CONTAINER_OF(ptr, type, member) ((type *)(void *)((char *)(ptr) - offsetof(type, member)))

/* Move a pointer out of a variable that has a cleanup: the variable is NULL afterwards. */
#define TAKE(var) __extension__({ __typeof__(var) taken_ = (var); (var) = NULL; taken_; })

/* A bug, not an input error: abort with file, line and condition, in release builds too. */
#define must(cond) ((cond) ? (void)0 : must_failed(#cond, __FILE__, __LINE__))
void must_failed(const char *cond, const char *file, int line) __attribute__((noreturn, cold));

#endif
