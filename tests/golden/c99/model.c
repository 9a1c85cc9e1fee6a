/* Written by qs5; what the model is, see model.h. Do not edit. */
#include "model.h"

/* runtime/qs5_kernels.h stands here */

/* -- constants --------------------------------------------------------------------------------------------------- */

static const uint32_t encoder_weight[6] = {
    0x00CE0064u, 0x00000000u, 0x007F0007u, 0x00000000u, 0x00030081u, 0x00000000u,
};

static const int32_t encoder_bias[3] = {
    10, -20, 30,
};

static const int16_t encoder_M[3] = {
    20000, 20000, 20000,
};

static const uint8_t encoder_shift[3] = {
    14, 15, 16,
};

static const int16_t layers_0_norm_M[3] = {
    16384, -20000, 30000,
};

static const int32_t layers_0_norm_offset[3] = {
    1048576, 0, -4194304,
};

static const uint8_t layers_0_norm_shift[3] = {
    20, 21, 22,
};

static const uint32_t layers_0_ssm_Bu_weight[4] = {
    0x0001009Fu, 0x000B004Au, 0x000D0078u, 0x000600AEu,
};

static const int16_t layers_0_ssm_Bu_M[4] = {
    20000, 20000, 20000, 20000,
};

static const uint8_t layers_0_ssm_Bu_shift[4] = {
    14, 15, 16, 17,
};

static const int16_t layers_0_ssm_state_re[2] = {
    30000, 20000,
};

static const int16_t layers_0_ssm_state_im[2] = {
    -8000, 25000,
};

static const int8_t layers_0_ssm_state_out_shift[2] = {
    5, 6,
};

static const uint32_t layers_0_ssm_y_C[3] = {
    0x000D000Bu, 0x0007000Eu, 0x000E000Du,
};

static const int8_t layers_0_ssm_y_D[3] = {
    64, -32, 127,
};

static const int16_t layers_0_ssm_y_D_M[3] = {
    16384, 16384, 16384,
};

static const uint8_t layers_0_ssm_y_D_shift[3] = {
    18, 18, 18,
};

static const int16_t layers_0_ssm_y_M[3] = {
    20000, 25000, 30000,
};

static const uint8_t layers_0_ssm_y_shift[3] = {
    16, 16, 16,
};

static const int32_t input_M[2] = {
    1048576, -1048576,
};

static const int64_t input_offset[2] = {
    INT64_C(-134217728), INT64_C(134217728),
};

static const uint32_t decoder_weight[4] = {
    0x009C145Au, 0x00000000u, 0x006E05B0u, 0x00000000u,
};

static const int32_t decoder_bias[2] = {
    500, -500,
};

static const int16_t decoder_M[2] = {
    20000, 20000,
};

static const uint8_t decoder_shift[2] = {
    14, 15,
};

const char *const qs5_classes[2] = {
    "yes",
    "no",
};

const char *const qs5_channels[2] = {
    "left",
    "right",
};

const char *const qs5_provenance[1] = {
    "made by: test_golden.py",
};

/* -- the model --------------------------------------------------------------------------------------------------- */

void qs5_reset(qs5_state *state)
{
    state->steps = 0;
    qs5k_zero(state->layers_0_ssm_state, 16);
    for (uint32_t i = 0; i < 3u; i++) {
        state->sum[i] = 0;
    }
}

void qs5_init(qs5_state *state)
{
    qs5k_zero(state->work, 64);
    qs5_reset(state);
}

void qs5_step(qs5_state *state, const uint8_t raw[QS5_AT_LEAST(2)])
{
    qs5_code *const layers_0_ssm_state = state->layers_0_ssm_state;
    qs5_code *const work = state->work;
    qs5_code *const input = work + 0;
    qs5_code *const encoder = work + 16;
    qs5_code *const layers_0_norm = work + 0;
    qs5_code *const layers_0_ssm_Bu = work + 32;
    qs5_code *const layers_0_ssm_state_out = work + 32;
    qs5_code *const layers_0_ssm_y = work + 48;
    qs5_code *const layers_0_residual = work + 16;

    for (uint32_t i = 0; i < 2u; i++) {
        input[i] = qs5k_input(raw[i], input_M[i], input_offset[i], 20, -127, 127);
    }
    qs5k_dense(encoder, 3, input, 2, encoder_weight, 8, encoder_bias, encoder_M, encoder_shift, -32767, 32767);
    qs5k_affine(layers_0_norm, 3, encoder, layers_0_norm_M, layers_0_norm_offset, layers_0_norm_shift, -127, 127);
    qs5k_dense(layers_0_ssm_Bu, 4, layers_0_norm, 3, layers_0_ssm_Bu_weight, 4, 0, layers_0_ssm_Bu_M,
        layers_0_ssm_Bu_shift, -32767, 32767);
    qs5k_recurrence(layers_0_ssm_state, 2, layers_0_ssm_Bu, layers_0_ssm_state_re, layers_0_ssm_state_im, 1, 15,
        -32767, 32767);
    qs5k_shift_modes(layers_0_ssm_state_out, 2, layers_0_ssm_state, layers_0_ssm_state_out_shift, -127, 127);
    qs5k_output(layers_0_ssm_y, 3, layers_0_ssm_state_out, 0, 4, layers_0_ssm_y_C, 0, 2, layers_0_norm,
        layers_0_ssm_y_D, layers_0_ssm_y_D_M, layers_0_ssm_y_D_shift, layers_0_ssm_y_M, layers_0_ssm_y_shift, -127,
        127);
    qs5k_add(layers_0_residual, 3, encoder, layers_0_ssm_y, -3, -32767, 32767);
    if (state->steps < QS5_MAX_STEPS) { /* later ones could overflow the sum */
        state->steps++;
        qs5k_sum32(state->sum, 3, layers_0_residual);
    }
}

int qs5_finish(qs5_state *state, int16_t logits[QS5_AT_LEAST(2)])
{
    qs5_code *const work = state->work;
    qs5_code *const pool = work + 0;
    qs5_code *const decoder = work + 16;
    if (state->steps == 0u) {
        for (uint32_t i = 0; i < 2u; i++) {
            logits[i] = 0;
        }
        return -1;
    }
    qs5k_mean32(pool, 3, state->sum, state->steps);
    qs5k_dense(decoder, 2, pool, 3, decoder_weight, 8, decoder_bias, decoder_M, decoder_shift, -32767, 32767);
    for (uint32_t i = 0; i < 2u; i++) {
        logits[i] = decoder[i];
    }
    return qs5k_argmax(decoder, 2);
}
