#define _GNU_SOURCE
#include "CBench.h"
#include <sched.h>

int cbench_stay_on_cpu(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	return sched_setaffinity(0, sizeof(set), &set);
}
