/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * What both halves know of socket load balancing: the layout of every map value of socketlb.bpf.c. Integers are in host byte order
 * unless a comment says otherwise; addresses and ports are in network order.
 */
#ifndef XE_SOCKETLB_H
#define XE_SOCKETLB_H

#include "wire.h"

#define XE_SERVICES_DEFAULT 65536 /* addresses and ports of services */
#define XE_BACKENDS_DEFAULT 262144
#define XE_BALANCED_PODS 8192
#define XE_SERVICE_BACKENDS_MAX 4096 /* of one service and port */

/* Where a service is reached. Key of `services`. */
struct xe_service_address {
	struct xe_address address;
	__u16 port; /* network byte order */
	__u8 protocol; /* IPPROTO_TCP or IPPROTO_UDP */
	__u8 reserved;
};

enum xe_service_flag {
	XE_SERVICE_STICKY = 1 << 0, /* a pod's connections go to one backend, as long as there are the same ones */
};

/* A service's present set of backends. Value of `services`. */
struct xe_service {
	__u32 set; /* never used twice while the maps live */
	__u32 backends; /* how many; 0: connections are refused */
	__u32 flags; /* enum xe_service_flag */
	__u32 reserved;
};

/* Key of `backends`. */
struct xe_backend_key {
	__u32 set;
	__u32 index; /* 0 to `backends` - 1 */
};

/* A pod behind a service. Value of `backends`. */
struct xe_backend {
	struct xe_address address;
	__u16 port; /* network byte order */
	__u16 reserved;
};

enum xe_socketlb_count {
	XE_SOCKETLB_CONNECTS = 0, /* connections, and connected UDP sockets, that were sent to a backend */
	XE_SOCKETLB_DATAGRAMS = 1, /* datagrams of sockets without a connection */
	XE_SOCKETLB_ANSWERS = 2, /* their answers, given the service's address again */
	XE_SOCKETLB_FAILED = 3, /* the address of a service stayed as it was: no memory, or a backend was not where its set says */
	XE_SOCKETLB_REFUSED = 4, /* there is no backend */
	XE_SOCKETLB_COUNTS = 5,
};

#endif /* XE_SOCKETLB_H */
