/* Checks of the program against golden vector files. Each returns true when it passes; `why` says what was compared and how far off. */
#ifndef DMC_TESTS_ORACLE_H
#define DMC_TESTS_ORACLE_H

#include <stdbool.h>

#define ORACLE_WHY 256

bool oracle_train_file(const char *path, char why[ORACLE_WHY]);  /* train_NN: soft form and gradients */
bool oracle_delay_train(const char *path, char why[ORACLE_WHY]); /* delay_NN: soft form and gradients */
bool oracle_model_train(const char *dir, char why[ORACLE_WHY]);  /* model: logits, losses, gradients of one step */
bool oracle_model_adamw(const char *dir, char why[ORACLE_WHY]);  /* model: five optimiser steps */

#endif
