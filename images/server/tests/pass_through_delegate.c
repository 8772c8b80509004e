/* A delegate for LiteRT as device vendors ship them, small enough to be built by a test.
 *
 * It takes RESHAPE and computes it by copying 32-bit floats, to each of which it adds the value of its option
 * "add": an answer tells who computed it. Options: "add", "takes" (the number of another operator to take),
 * "fail" (the message to fail with), "crash" (end the process), "hang" (write the process id to this file, and
 * wait for ever).
 *
 * Source: the C interface of TensorFlow Lite, tensorflow/lite/core/c/common.h and
 * tensorflow/lite/delegates/external/external_delegate_interface.h; what is not used here is left opaque.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { OK = 0, FAILED = 1, RESHAPE = 22 };

typedef struct { int size; int data[]; } IntArray;

typedef struct Tensor {
    int type;
    void *data;
    IntArray *dims;
    struct { float scale; int32_t zero_point; } params;
    int allocation_type;
    size_t bytes;
    const void *allocation;
    const char *name;
    struct Delegate *delegate;
    int buffer_handle;
    bool data_is_stale, is_variable;
    struct { int type; void *params; } quantization;
    void *sparsity;
    const IntArray *dims_signature;
} Tensor;

typedef struct {
    IntArray *inputs, *outputs, *intermediates, *temporaries;
    void *user_data;
} Node;

typedef struct Context Context;

typedef struct {
    void *(*init)(Context *, const char *, size_t);
    void (*free)(Context *, void *);
    int (*prepare)(Context *, Node *);
    int (*invoke)(Context *, Node *);
    const char *(*profiling_string)(const Context *, const Node *);
    int32_t builtin_code;
    const char *custom_name;
    int version;
    void *registration_external;
    void *(*async_kernel)(Context *, Node *);
    uint64_t inplace_operator;
} Registration;

struct Context {
    size_t tensors_size;
    int (*get_execution_plan)(Context *, IntArray **);
    Tensor *tensors;
    void *impl;
    int (*resize_tensor)(Context *, Tensor *, IntArray *);
    void (*report_error)(Context *, const char *, ...);
    int (*add_tensors)(Context *, int, int *);
    int (*get_node_and_registration)(Context *, int, Node **, Registration **);
    int (*replace_node_subsets)(Context *, Registration, const IntArray *, struct Delegate *);
};

typedef struct Delegate {
    void *data;
    int (*prepare)(Context *, struct Delegate *);
    int (*copy_from_buffer_handle)(Context *, struct Delegate *, int, Tensor *);
    int (*copy_to_buffer_handle)(Context *, struct Delegate *, int, Tensor *);
    void (*free_buffer_handle)(Context *, struct Delegate *, int *);
    int64_t flags;
    void *opaque_delegate_builder;
} Delegate;

typedef struct { float add; int takes; } Settings;

typedef struct { Delegate *delegate; IntArray *nodes, *inputs, *outputs; } Params;

static void *kernel_init(Context *context, const char *buffer, size_t length)
{
    (void)context, (void)length;
    return ((const Params *)buffer)->delegate->data;
}

static Tensor *input_of(Context *context, Node *node)
{
    return &context->tensors[node->inputs->data[0]];
}

static int kernel_prepare(Context *context, Node *node)
{
    const IntArray *dims = input_of(context, node)->dims;
    size_t size = sizeof(IntArray) + sizeof(int) * (size_t)dims->size;
    IntArray *copy = malloc(size);
    memcpy(copy, dims, size);
    return context->resize_tensor(context, &context->tensors[node->outputs->data[0]], copy);
}

static int kernel_invoke(Context *context, Node *node)
{
    const Tensor *input = input_of(context, node);
    const float *from = input->data;
    float *to = context->tensors[node->outputs->data[0]].data;
    for (size_t i = 0; i < input->bytes / sizeof(float); i++)
        to[i] = from[i] + ((Settings *)node->user_data)->add;
    return OK;
}

static int delegate_prepare(Context *context, Delegate *delegate)
{
    IntArray *plan;
    if (context->get_execution_plan(context, &plan) != OK)
        return FAILED;
    IntArray *taken = malloc(sizeof(IntArray) + sizeof(int) * (size_t)plan->size);
    taken->size = 0;
    for (int i = 0; i < plan->size; i++) {
        Node *node;
        Registration *registration;
        if (context->get_node_and_registration(context, plan->data[i], &node, &registration) == OK &&
            registration->builtin_code == ((Settings *)delegate->data)->takes)
            taken->data[taken->size++] = plan->data[i];
    }
    Registration kernel = {
        .init = kernel_init, .prepare = kernel_prepare, .invoke = kernel_invoke, .custom_name = "PassThrough", .version = 1};
    int status = context->replace_node_subsets(context, kernel, taken, delegate);
    free(taken);
    return status;
}

static void hang(const char *path)
{
    FILE *file = fopen(path, "w");
    fprintf(file, "%d\n", (int)getpid());
    fclose(file);
    for (;;)
        pause();
}

Delegate *tflite_plugin_create_delegate(char **keys, char **values, size_t count, void (*report_error)(const char *))
{
    Delegate *delegate = calloc(1, sizeof *delegate);
    Settings *settings = calloc(1, sizeof *settings);
    settings->takes = RESHAPE;
    for (size_t i = 0; i < count; i++) {
        if (strcmp(keys[i], "add") == 0)
            settings->add = strtof(values[i], NULL);
        else if (strcmp(keys[i], "takes") == 0)
            settings->takes = atoi(values[i]);
        else if (strcmp(keys[i], "crash") == 0)
            abort();
        else if (strcmp(keys[i], "hang") == 0)
            hang(values[i]);
        else {
            report_error(strcmp(keys[i], "fail") == 0 ? values[i] : "there is no such option");
            return NULL;
        }
    }
    delegate->data = settings;
    delegate->prepare = delegate_prepare;
    return delegate;
}

void tflite_plugin_destroy_delegate(Delegate *delegate)
{
    free(delegate->data);
    free(delegate);
}
