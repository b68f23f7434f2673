#pragma once
#include "socketlb.h"
#include "wire.h"
#include <stddef.h>

/// One compiled BPF object (ELF), embedded in the binary's read-only data.
struct bpf_embedded_object {
    const char *_Nonnull name;
    const void *_Nonnull data;
    size_t size; // bytes
};

extern const struct bpf_embedded_object bpf_embedded_encryptor;
extern const struct bpf_embedded_object bpf_embedded_socketlb;
