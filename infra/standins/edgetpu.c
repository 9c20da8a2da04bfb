/* A stand-in for libedgetpu: a TFLite external delegate that takes every "edgetpu-custom-op".
 *
 * It is loaded, applied and called exactly as the real library is, one operator at a time. What it
 * computes is no network: every output byte is a function of all input bytes, the same everywhere.
 * It proves the path to an accelerator, not libedgetpu's ABI, its accuracy or its speed, and says
 * so: `assay_standin` is the only device class it may be listed under.
 *
 * Options: "device" as libedgetpu's ("", ":N", "usb", "usb:N", "pci", "pci:N"; "usb:9" is never
 * there), and
 *   "state" PATH  the cable: plugged in while the file exists. What the file holds is the health of
 *                 the unit: "wrong" changes every answer, "wedged" never gives one.
 *   "fault" WORD  on loading: "crash" dies of SIGSEGV, "hang" never returns, "refuse" says why not;
 *                 on being given the model: "old" wants a newer library, as libedgetpu says it.
 *
 * The declarations below are those parts of TFLite's C interface for delegates that are used here;
 * they have been the same from 2.14 on. Nothing is linked: everything is reached through pointers.
 */
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

enum { OK = 0, FAILED = 1 };
enum { ALLOW_DYNAMIC_TENSORS = 1 };

typedef struct Context Context;
typedef struct { int size; int data[]; } IntArray;

typedef struct Delegate {
  void *data;
  int (*prepare)(Context *, struct Delegate *);
  void *copy_from, *copy_to, *free_handle;
  int64_t flags;
  void *opaque_builder;
} Delegate;

typedef struct {
  int type;
  void *data;
  IntArray *dims;
  struct { float scale; int32_t zero_point; } params;
  int allocation_type;
  size_t bytes;
  const void *allocation;
  const char *name;
  Delegate *delegate;
  int buffer_handle;
  bool data_is_stale, is_variable;
  struct { int type; void *params; } quantization;
  void *sparsity;
  const IntArray *dims_signature;
} Tensor;

typedef struct {
  IntArray *inputs, *outputs, *intermediates, *temporaries;
  void *user_data;
  /* more follows that is of no interest here; nodes are only ever reached by pointer */
} Node;

typedef struct Registration {
  void *(*init)(Context *, const char *, size_t);
  void (*free)(Context *, void *);
  int (*prepare)(Context *, Node *);
  int (*invoke)(Context *, Node *);
  const char *(*profiling_string)(const Context *, const Node *);
  int32_t builtin_code;
  const char *custom_name;
  int version;
  void *external, *async_kernel;
  uint64_t inplace_operator;
  uint64_t room[8]; /* passed by value: later releases may read further */
} Registration;

struct Context {
  size_t tensors_size;
  int (*execution_plan)(Context *, IntArray **);
  Tensor *tensors;
  void *impl;
  void *resize_tensor;
  void (*report)(Context *, const char *, ...);
  void *add_tensors;
  int (*node)(Context *, int, Node **, Registration **);
  int (*replace)(Context *, Registration, const IntArray *, Delegate *);
};

typedef struct { Delegate *delegate; } DelegateParams;

typedef struct { char device[64], state[512], fault[16]; } Unit;

EXPORT const char assay_standin[64] = "standin-edgetpu";

EXPORT const char *edgetpu_version(void) { return "stand-in, computes no network"; }

static bool unplugged(const Unit *unit) {
  return unit->state[0] && access(unit->state, F_OK) != 0;
}

static void health(const Unit *unit, char *text, size_t size) {
  text[0] = 0;
  FILE *file = unit->state[0] ? fopen(unit->state, "r") : NULL;
  if (!file) return;
  size_t n = fread(text, 1, size - 1, file);
  text[n] = 0;
  text[strcspn(text, "\n")] = 0;
  fclose(file);
}

static void forever(void) {
  for (;;) sleep(1000);
}

static void *kernel_init(Context *context, const char *buffer, size_t length) {
  (void)context, (void)length;
  return ((const DelegateParams *)buffer)->delegate->data;
}

static void kernel_free(Context *context, void *unit) { (void)context, (void)unit; }

static int kernel_prepare(Context *context, Node *node) {
  const Unit *unit = node->user_data;
  if (strcmp(unit->fault, "old")) return OK;
  context->report(context, "Internal: Package requires runtime version (14), which is newer than "
                           "this runtime version (13).");
  return FAILED;
}

static uint64_t mixed(uint64_t sum) {
  sum ^= sum >> 33, sum *= 0xff51afd7ed558ccdULL, sum ^= sum >> 33;
  return sum;
}

static int kernel_invoke(Context *context, Node *node) {
  const Unit *unit = node->user_data;
  char text[16];
  health(unit, text, sizeof text);
  if (!strcmp(text, "wedged")) forever();
  if (unplugged(unit)) {
    context->report(context, "Failed to execute request. Could not map pages : %s (No such device)",
                    unit->device);
    return FAILED;
  }
  uint64_t sum = 0xcbf29ce484222325ULL ^ (strcmp(text, "wrong") ? 0 : 1);
  for (int i = 0; i < node->inputs->size; i++) {
    const Tensor *in = &context->tensors[node->inputs->data[i]];
    for (size_t at = 0; at < in->bytes; at++)
      sum = (sum ^ ((const uint8_t *)in->data)[at]) * 0x100000001b3ULL;
  }
  for (int o = 0; o < node->outputs->size; o++) {
    const Tensor *out = &context->tensors[node->outputs->data[o]];
    for (size_t at = 0; at < out->bytes; at++)
      ((uint8_t *)out->data)[at] = (uint8_t)mixed(sum + ((uint64_t)o << 32) + at);
  }
  return OK;
}

static int apply(Context *context, Delegate *delegate) {
  IntArray *plan;
  if (context->execution_plan(context, &plan) != OK) return FAILED;
  int size = plan->size, *order = malloc(sizeof(int) * (size_t)(size + 1));
  if (!order) return FAILED;
  memcpy(order, plan->data, sizeof(int) * (size_t)size); /* the plan changes as it is replaced */
  Registration kernel;
  memset(&kernel, 0, sizeof kernel);
  kernel.init = kernel_init, kernel.free = kernel_free;
  kernel.prepare = kernel_prepare, kernel.invoke = kernel_invoke;
  kernel.custom_name = "EdgeTpuDelegateForCustomOp", kernel.version = 1;
  int status = OK;
  for (int i = 0; i < size && status == OK; i++) {
    Node *node;
    Registration *known;
    status = context->node(context, order[i], &node, &known);
    if (status != OK || !known->custom_name || strcmp(known->custom_name, "edgetpu-custom-op"))
      continue;
    int one[2] = {1, order[i]};
    status = context->replace(context, kernel, (const IntArray *)one, delegate);
  }
  free(order);
  return status;
}

static bool set(char *field, size_t size, const char *value) {
  return (size_t)snprintf(field, size, "%s", value) < size;
}

EXPORT Delegate *tflite_plugin_create_delegate(char **keys, char **values, size_t count,
                                               void (*report)(const char *)) {
  Unit *unit = calloc(1, sizeof *unit);
  Delegate *delegate = calloc(1, sizeof *delegate);
  bool known = unit && delegate && set(unit->device, sizeof unit->device, "usb:0");
  for (size_t i = 0; known && i < count; i++) {
    if (!strcmp(keys[i], "device"))
      known = set(unit->device, sizeof unit->device, values[i]);
    else if (!strcmp(keys[i], "state"))
      known = set(unit->state, sizeof unit->state, values[i]);
    else if (!strcmp(keys[i], "fault"))
      known = set(unit->fault, sizeof unit->fault, values[i]);
    else
      known = false;
  }
  if (known && !strcmp(unit->fault, "crash")) raise(SIGSEGV);
  if (known && !strcmp(unit->fault, "hang")) forever();
  bool refused = !known || !strcmp(unit->fault, "refuse");
  if (refused) report("the delegate does not take these options");
  if (refused || unplugged(unit) || !strcmp(unit->device, "usb:9")) {
    /* No unit there: as libedgetpu does, not a word. */
    free(unit), free(delegate);
    return NULL;
  }
  delegate->data = unit, delegate->prepare = apply, delegate->flags = ALLOW_DYNAMIC_TENSORS;
  return delegate;
}

EXPORT void tflite_plugin_destroy_delegate(Delegate *delegate) {
  if (!delegate) return;
  free(delegate->data);
  free(delegate);
}
