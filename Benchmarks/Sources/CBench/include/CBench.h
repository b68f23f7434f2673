/* What Swift's Glibc module leaves out. */
#pragma once
#include <sys/epoll.h>
#include <sys/timerfd.h>

/* Keeps the calling thread on one CPU. Returns 0, or -1 and errno. */
int cbench_stay_on_cpu(int cpu);
