/* thumbnet: the work of a layer shared among threads. Every part writes bytes of its own, so that the answer is the
 * same with any number of them. */
#ifndef TN_THREADS_H
#define TN_THREADS_H
#include <stdint.h>

/* Does task(context, piece) for every piece from 0 to before `pieces`, at once or not, and returns when all are done.
 */
typedef void tn_task_t(void *context, int32_t piece);
typedef void tn_parallel_for_t(tn_task_t *task, void *context, int32_t pieces, void *user);

/* What the program gave: without it, all is done by the caller. */
static struct {
    tn_parallel_for_t *parallel_for;
    void *user;
    int32_t threads;
} tn_threads;

typedef struct {
    void (*part)(const void *arguments, int32_t first, int32_t end);
    const void *arguments;
    int32_t count, each;
} tn_share_t;

static inline void tn_piece(void *context, int32_t piece) {
    const tn_share_t *share = context;
    const int32_t first = piece * share->each, end = first + share->each;
    share->part(share->arguments, first, end < share->count ? end : share->count);
}

/* Shares `count` pixels or rows, of which `grain` are worth the waking of a thread. */
static inline void tn_share(void (*part)(const void *arguments, int32_t first, int32_t end), const void *arguments,
                            int32_t count, int32_t grain) {
    int32_t pieces = count / grain;
    if (pieces > tn_threads.threads)
        pieces = tn_threads.threads;
    if (pieces < 2 || !tn_threads.parallel_for) {
        part(arguments, 0, count);
        return;
    }
    tn_share_t share = {part, arguments, count, (count + pieces - 1) / pieces};
    tn_threads.parallel_for(tn_piece, &share, (count + share.each - 1) / share.each, tn_threads.user);
}

typedef struct {
    const int8_t *in;
    int8_t *out;
    const void *constants, *more;
} tn_pixels_t;

/* A function over pixels that shares them; KERNEL does a part. */
#define TN_DEF_SHARED_PIXELS(NAME, KERNEL, IN, OUT, GRAIN)                                                             \
    static void NAME##_part(const void *arguments, int32_t first, int32_t end) {                                       \
        const tn_pixels_t *of = arguments;                                                                             \
        KERNEL(of->in + first * (IN), of->out + first * (OUT), of->constants, of->more, end - first);                  \
    }                                                                                                                  \
    static __attribute__((noinline)) void NAME(const int8_t *in, int8_t *out, const void *constants, const void *more, \
                                               int32_t pixels) {                                                       \
        const tn_pixels_t arguments = {in, out, constants, more};                                                      \
        tn_share(NAME##_part, &arguments, pixels, GRAIN);                                                              \
    }

typedef struct {
    const int8_t *in;
    int8_t *out;
    const int8_t *parameters, *parts, *padding;
    int32_t first, height;
} tn_rows_t;

/* A depthwise function that shares its output rows, each of ROW bytes. */
#define TN_DEF_SHARED_ROWS(NAME, KERNEL, S, ROW, GRAIN)                                                                \
    static void NAME##_part(const void *arguments, int32_t first, int32_t end) {                                       \
        const tn_rows_t *of = arguments;                                                                               \
        KERNEL(of->in, of->out + first * (ROW), of->parameters, of->parts, of->padding, of->first + first * (S),       \
               of->height, end - first);                                                                               \
    }                                                                                                                  \
    static __attribute__((noinline)) void NAME(const int8_t *in, int8_t *out, const int8_t *parameters,                \
                                               const int8_t *parts, const int8_t *padding, int32_t first,              \
                                               int32_t height, int32_t count) {                                        \
        const tn_rows_t arguments = {in, out, parameters, parts, padding, first, height};                              \
        tn_share(NAME##_part, &arguments, count, GRAIN);                                                               \
    }

#endif
