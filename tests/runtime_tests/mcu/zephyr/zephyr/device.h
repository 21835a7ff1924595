/* As much as the port of the test server takes of this header of Zephyr's, as Zephyr 3.7 declares it. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
struct device {
    int unused;
};
bool device_is_ready(const struct device *);
