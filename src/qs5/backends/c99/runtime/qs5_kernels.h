/* qs5 kernels: the ops of an integer model, SPEC.md section 4, over sizes and pointers. C99 (and C++), no library.
 *
 * All signals are arrays of qs5_code, which is int16_t; where a model has a signal of 16 unsigned bits, define
 * QS5_WIDE_CODES before this file, and qs5_code is int32_t. Element-wise kernels may write where they read.
 * No kernel overflows on a model that passed the checks of the package: every sum was proved to fit.
 *
 * Faster paths of the matrix kernels, same bits: SMLAD (Armv7E-M, Armv8.1-M), MVE. QS5_PLAIN switches them off. */
#ifndef QS5_KERNELS_H
#define QS5_KERNELS_H

#include <stdint.h>

#ifdef QS5_WIDE_CODES
typedef int32_t qs5_code;
#else
typedef int16_t qs5_code;
#endif

/* Kernels that are called from many places stay functions: inlining them would multiply the flash. */
#if defined(__GNUC__)
#define QS5K_FUNCTION static __attribute__((unused, noinline))
#else
#define QS5K_FUNCTION static inline
#endif

#if !defined(QS5_PLAIN) && !defined(QS5_WIDE_CODES) && defined(__GNUC__) && defined(__ARM_FEATURE_DSP) \
    && !defined(__ARM_BIG_ENDIAN)
#define QS5K_DSP 1
#endif
#if defined(QS5K_DSP) && defined(__ARM_FEATURE_MVE) && (__ARM_FEATURE_MVE & 1)
#define QS5K_MVE 1
#include <arm_mve.h>
#endif

/* Without it compilers for small cores load all weights of a block first and then run out of registers. */
#if defined(__GNUC__) && (defined(__arm__) || defined(__riscv))
#define QS5K_IN_ORDER() __asm__ volatile("" ::: "memory")
#else
#define QS5K_IN_ORDER() ((void)0)
#endif

/* -- arithmetic, SPEC 3 ------------------------------------------------------------------------------------------ */

/* The number with these 32 bits. C99 leaves the plain conversion to the compiler; this one it must get right, and
 * does without an instruction. */
static inline int32_t qs5k_signed(uint32_t bits)
{
    return bits <= 0x7FFFFFFFu ? (int32_t)bits : -(int32_t)(0xFFFFFFFFu - bits) - 1;
}

/* floor(x / 2^s), 0 <= s <= 31: one instruction, without relying on what C99 leaves open for negative numbers. */
static inline int32_t qs5k_floor_shift(int32_t x, uint32_t s)
{
    return x < 0 ? ~(~x >> s) : x >> s;
}

static inline int64_t qs5k_floor_shift64(int64_t x, uint32_t s)
{
    return x < 0 ? ~(~x >> s) : x >> s;
}

/* floor((x + 2^(s-1)) / 2^s), 1 <= s <= 30. */
static inline int32_t qs5k_round_shift(int32_t x, uint32_t s)
{
    return qs5k_floor_shift(x + (int32_t)(1u << (s - 1u)), s);
}

/* The same for every sign of s: x 2^(-s) for s <= 0. */
static inline int32_t qs5k_shift(int32_t x, int32_t s)
{
    return s > 0 ? qs5k_round_shift(x, (uint32_t)s) : x * (int32_t)(1u << (uint32_t)-s);
}

static inline int32_t qs5k_clip(int32_t x, int32_t low, int32_t high)
{
    return x < low ? low : (x > high ? high : x);
}

/* floor(acc M / 2^16) + added, 0 <= M < 2^15, within 32 bits. */
static inline int32_t qs5k_multiply_high(int32_t acc, int32_t M, int32_t added)
{
#if defined(QS5K_DSP)
    int32_t result;
    __asm__("smlawb %0, %1, %2, %3" : "=r"(result) : "r"(acc), "r"(M), "r"(added));
    return result;
#else
    const uint32_t low = ((uint32_t)acc & 0xFFFFu) * (uint32_t)M;
    return qs5k_floor_shift(acc, 16u) * M + (int32_t)(low >> 16) + added;
#endif
}

/* floor((acc M + 2^(s-1)) / 2^s), 1 <= s <= 46, or a number beyond 2^24 where that is beyond 2^24.
 * Shifts below 17 become 17 by shifting acc to the left first, clipped where it would overflow. */
static inline int32_t qs5k_requantize(int32_t acc, int32_t M, uint32_t s)
{
    if (s < 17u) {
        const int32_t scale = (int32_t)(1u << (17u - s));
        const int32_t limit = 0x7FFFFFFF >> (17u - s);
        acc = qs5k_clip(acc, -limit, limit) * scale;
        s = 17u;
    }
    return qs5k_floor_shift(qs5k_multiply_high(acc, M, (int32_t)(1u << (s - 17u))), s - 16u);
}

/* floor((x M + offset + 2^(s-1)) / 2^s) */
static inline int32_t qs5k_affine_of(int32_t x, int32_t M, int32_t offset, uint32_t s)
{
    return qs5k_round_shift(x * M + offset, s);
}

/* -- input, SPEC 4.1 --------------------------------------------------------------------------------------------- */

/* code = clip(floor((raw M + offset + 2^(shift-1)) / 2^shift)) in 64 bits: |M| < 2^31, |offset| < 2^61. */
static inline qs5_code qs5k_input(int32_t raw, int32_t M, int64_t offset, uint32_t shift, int32_t low, int32_t high)
{
    const int64_t sum = (int64_t)raw * M + offset + (int64_t)((uint64_t)1 << (shift - 1u));
    const int64_t code = qs5k_floor_shift64(sum, shift);
    return (qs5_code)(code < low ? low : (code > high ? high : code));
}

/* -- products of matrices with codes, SPEC 4.2 and 4.8 ----------------------------------------------------------- */

/* A matrix is stored in words of 32 / width weights, width 8, 4 or 2 bits. Blocks of four rows come first, then the
 * rows that remain, one by one; columns are filled up to whole groups with weights of zero, so x must be readable that
 * far. In a block, group follows group, and in a group row follows row:
 *
 *     width 8: a group is 8 columns, two words a row; weights are bytes in two's complement
 *     width 4: a group is 8 columns, one word a row; a field holds weight + 8
 *     width 2: a group is 16 columns, one word a row; a field holds weight + 2
 *
 * Column 2 j of a word is in the bits from width j on, column 2 j + 1 in those from 16 + width j on: a shift and a
 * mask give two weights as halfwords, in the order of the codes that they meet. Where a field holds weight + h, the
 * accumulator starts at -h sum(x). */

static inline uint32_t qs5k_group(uint32_t width)
{
    return width == 2u ? 16u : 8u;
}

static inline uint32_t qs5k_words_per_row(uint32_t columns, uint32_t width)
{
    const uint32_t group = qs5k_group(width);
    return (columns + group - 1u) / group * (width == 8u ? 2u : 1u);
}

static inline int32_t qs5k_start(const qs5_code *x, uint32_t columns, uint32_t width)
{
    int32_t sum = 0;
    if (width == 8u) {
        return 0;
    }
    for (uint32_t i = 0; i < columns; i++) {
        sum += x[i];
    }
    return sum * (width == 4u ? -8 : -2);
}

#if defined(QS5K_DSP)

typedef uint32_t __attribute__((may_alias)) qs5k_pair; /* two codes of an array, at an address divisible by four */

static inline uint32_t qs5k_two(const qs5_code *x)
{
    return *(const qs5k_pair *)(const void *)x;
}

/* The rows below are assembly, for compilers load all weights first and then run out of registers. Each multiplies
 * eight columns of one row with the codes x0 to x3, two a word, and adds to acc. */

typedef struct { uint32_t words[2]; } __attribute__((may_alias)) qs5k_two_words;

static inline int32_t qs5k_dsp8(const uint32_t *w, uint32_t x0, uint32_t x1, uint32_t x2, uint32_t x3, int32_t acc)
{
    uint32_t left, right, two;
    __asm__("ldrd %[left], %[right], %[w]\n\t"
            "sxtb16 %[two], %[left]\n\t"
            "smlad %[acc], %[two], %[x0], %[acc]\n\t"
            "sxtb16 %[two], %[left], ror #8\n\t"
            "smlad %[acc], %[two], %[x1], %[acc]\n\t"
            "sxtb16 %[two], %[right]\n\t"
            "smlad %[acc], %[two], %[x2], %[acc]\n\t"
            "sxtb16 %[two], %[right], ror #8\n\t"
            "smlad %[acc], %[two], %[x3], %[acc]"
            : [acc] "+&r"(acc), [left] "=&r"(left), [right] "=&r"(right), [two] "=&r"(two)
            : [w] "m"(*(const qs5k_two_words *)(const void *)w), [x0] "r"(x0), [x1] "r"(x1), [x2] "r"(x2), [x3] "r"(x3));
    return acc;
}

static inline int32_t qs5k_dsp4(uint32_t word, uint32_t mask, uint32_t x0, uint32_t x1, uint32_t x2, uint32_t x3,
                                int32_t acc)
{
    uint32_t two;
    __asm__("and %[two], %[mask], %[word]\n\t"
            "smlad %[acc], %[two], %[x0], %[acc]\n\t"
            "and %[two], %[mask], %[word], lsr #4\n\t"
            "smlad %[acc], %[two], %[x1], %[acc]\n\t"
            "and %[two], %[mask], %[word], lsr #8\n\t"
            "smlad %[acc], %[two], %[x2], %[acc]\n\t"
            "and %[two], %[mask], %[word], lsr #12\n\t"
            "smlad %[acc], %[two], %[x3], %[acc]"
            : [acc] "+&r"(acc), [two] "=&r"(two)
            : [word] "r"(word), [mask] "r"(mask), [x0] "r"(x0), [x1] "r"(x1), [x2] "r"(x2), [x3] "r"(x3));
    return acc;
}

static inline int32_t qs5k_dsp2(uint32_t word, uint32_t mask, uint32_t x0, uint32_t x1, uint32_t x2, uint32_t x3,
                                int32_t acc)
{
    uint32_t two;
    __asm__("and %[two], %[mask], %[word]\n\t"
            "smlad %[acc], %[two], %[x0], %[acc]\n\t"
            "and %[two], %[mask], %[word], lsr #2\n\t"
            "smlad %[acc], %[two], %[x1], %[acc]\n\t"
            "and %[two], %[mask], %[word], lsr #4\n\t"
            "smlad %[acc], %[two], %[x2], %[acc]\n\t"
            "and %[two], %[mask], %[word], lsr #6\n\t"
            "smlad %[acc], %[two], %[x3], %[acc]"
            : [acc] "+&r"(acc), [two] "=&r"(two)
            : [word] "r"(word), [mask] "r"(mask), [x0] "r"(x0), [x1] "r"(x1), [x2] "r"(x2), [x3] "r"(x3));
    return acc;
}

#if defined(QS5K_MVE)

/* A piece is eight codes, for width 8 in the order in which the bytes of two words meet them. */
typedef int16x8_t qs5k_piece;

static inline qs5k_piece qs5k_piece8(const qs5_code *x)
{
    static const uint16_t order[8] = {0, 2, 1, 3, 4, 6, 5, 7};
    return vldrhq_gather_shifted_offset_s16(x, vldrhq_u16(order));
}

static inline qs5k_piece qs5k_piece4(const qs5_code *x)
{
    return vldrhq_s16(x);
}

static inline qs5k_piece qs5k_piece2(const qs5_code *x)
{
    return vldrhq_s16(x);
}

static inline int32_t qs5k_add8(int32_t acc, const uint32_t *w, uint32_t part, qs5k_piece x)
{
    return vmladavaq_s16(acc, vldrbq_s16((const int8_t *)(w + 2u * part)), x);
}

static inline int32_t qs5k_add4(int32_t acc, const uint32_t *w, uint32_t part, qs5k_piece x)
{
    static const int32_t right[4] = {0, -4, -8, -12};
    const uint32x4_t fields = vshlq_u32(vdupq_n_u32(w[part]), vldrwq_s32(right));
    return vmladavaq_s16(acc, vreinterpretq_s16_u32(vandq_u32(fields, vdupq_n_u32(0x000F000Fu))), x);
}

static inline int32_t qs5k_add2(int32_t acc, const uint32_t *w, uint32_t part, qs5k_piece x)
{
    static const int32_t right[4] = {0, -2, -4, -6};
    const uint32x4_t fields = vshlq_u32(vdupq_n_u32(w[0] >> (8u * part)), vldrwq_s32(right));
    return vmladavaq_s16(acc, vreinterpretq_s16_u32(vandq_u32(fields, vdupq_n_u32(0x00030003u))), x);
}

#else

/* A piece is eight codes, two a word. */
typedef struct {
    uint32_t x0, x1, x2, x3;
} qs5k_piece;

static inline qs5k_piece qs5k_piece8(const qs5_code *x)
{
    const qs5k_piece piece = {qs5k_two(x), qs5k_two(x + 2), qs5k_two(x + 4), qs5k_two(x + 6)};
    return piece;
}

#define qs5k_piece4 qs5k_piece8
#define qs5k_piece2 qs5k_piece8

static inline int32_t qs5k_add8(int32_t acc, const uint32_t *w, uint32_t part, qs5k_piece x)
{
    return qs5k_dsp8(w + 2u * part, x.x0, x.x1, x.x2, x.x3, acc);
}

static inline int32_t qs5k_add4(int32_t acc, const uint32_t *w, uint32_t part, qs5k_piece x)
{
    return qs5k_dsp4(w[part], 0x000F000Fu, x.x0, x.x1, x.x2, x.x3, acc);
}

static inline int32_t qs5k_add2(int32_t acc, const uint32_t *w, uint32_t part, qs5k_piece x)
{
    return qs5k_dsp2(w[0] >> (8u * part), 0x00030003u, x.x0, x.x1, x.x2, x.x3, acc);
}

#endif

#define QS5K_PIECE 8u
#define QS5K_PARTS8(part) part(8, 0u)
#define QS5K_PARTS4(part) part(4, 0u)
#define QS5K_PARTS2(part) part(2, 0u) part(2, 1u)

#else /* plain C */

/* Byte i of a word, signed. */
static inline int32_t qs5k_byte(uint32_t word, uint32_t i)
{
    return qs5k_floor_shift(qs5k_signed(word << (24u - 8u * i)), 24u);
}

/* Field from..from + bits of a word, unsigned. */
static inline int32_t qs5k_field(uint32_t word, uint32_t from, uint32_t mask)
{
    return (int32_t)((word >> from) & mask);
}

/* A piece is four codes. */
typedef struct {
    int32_t x0, x1, x2, x3;
} qs5k_piece;

static inline qs5k_piece qs5k_piece8(const qs5_code *x)
{
    const qs5k_piece piece = {x[0], x[1], x[2], x[3]};
    return piece;
}

#define qs5k_piece4 qs5k_piece8
#define qs5k_piece2 qs5k_piece8

static inline int32_t qs5k_add8(int32_t acc, const uint32_t *w, uint32_t part, qs5k_piece x)
{
    const uint32_t word = w[part];
    acc += qs5k_byte(word, 0) * x.x0;
    acc += qs5k_byte(word, 2) * x.x1;
    acc += qs5k_byte(word, 1) * x.x2;
    return acc + qs5k_byte(word, 3) * x.x3;
}

static inline int32_t qs5k_add4(int32_t acc, const uint32_t *w, uint32_t part, qs5k_piece x)
{
    const uint32_t word = w[0];
    acc += qs5k_field(word, 8u * part, 15u) * x.x0;
    acc += qs5k_field(word, 8u * part + 16u, 15u) * x.x1;
    acc += qs5k_field(word, 8u * part + 4u, 15u) * x.x2;
    return acc + qs5k_field(word, 8u * part + 20u, 15u) * x.x3;
}

static inline int32_t qs5k_add2(int32_t acc, const uint32_t *w, uint32_t part, qs5k_piece x)
{
    const uint32_t word = w[0];
    acc += qs5k_field(word, 4u * part, 3u) * x.x0;
    acc += qs5k_field(word, 4u * part + 16u, 3u) * x.x1;
    acc += qs5k_field(word, 4u * part + 2u, 3u) * x.x2;
    return acc + qs5k_field(word, 4u * part + 18u, 3u) * x.x3;
}

#define QS5K_PIECE 4u
#define QS5K_PARTS8(part) part(8, 0u) part(8, 1u)
#define QS5K_PARTS4(part) part(4, 0u) part(4, 1u)
#define QS5K_PARTS2(part) part(2, 0u) part(2, 1u) part(2, 2u) part(2, 3u)

#endif

/* One piece of a group, met by four rows, and by one. */
#define QS5K_FOUR(width, part)                                                      \
    {                                                                               \
        const qs5k_piece piece = qs5k_piece##width(x + (part) * QS5K_PIECE);        \
        a0 = qs5k_add##width(a0, w, part, piece);                                   \
        QS5K_IN_ORDER();                                                            \
        a1 = qs5k_add##width(a1, w + row, part, piece);                             \
        QS5K_IN_ORDER();                                                            \
        a2 = qs5k_add##width(a2, w + 2 * row, part, piece);                         \
        QS5K_IN_ORDER();                                                            \
        a3 = qs5k_add##width(a3, w + 3 * row, part, piece);                         \
        QS5K_IN_ORDER();                                                            \
    }
#define QS5K_ONE(width, part) acc = qs5k_add##width(acc, w, part, qs5k_piece##width(x + (part) * QS5K_PIECE));

/* acc[r] += W[r] x for a block of four rows, and for a single row; row: words of a row in a group. */
#define QS5K_ROWS(width, words)                                                                                   \
    QS5K_FUNCTION void qs5k_block##width(int32_t acc[4], const uint32_t *w, const qs5_code *x, uint32_t columns)     \
    {                                                                                                             \
        const uint32_t row = words;                                                                               \
        const uint32_t *const end = w + 4u * qs5k_words_per_row(columns, width);                                  \
        int32_t a0 = acc[0], a1 = acc[1], a2 = acc[2], a3 = acc[3];                                               \
        for (; w != end; w += 4u * row, x += qs5k_group(width)) {                                                 \
            QS5K_PARTS##width(QS5K_FOUR)                                                                          \
        }                                                                                                         \
        acc[0] = a0;                                                                                              \
        acc[1] = a1;                                                                                              \
        acc[2] = a2;                                                                                              \
        acc[3] = a3;                                                                                              \
    }                                                                                                             \
    QS5K_FUNCTION int32_t qs5k_row##width(int32_t acc, const uint32_t *w, const qs5_code *x, uint32_t columns)      \
    {                                                                                                             \
        const uint32_t *const end = w + qs5k_words_per_row(columns, width);                                       \
        for (; w != end; w += words, x += qs5k_group(width)) {                                                    \
            QS5K_PARTS##width(QS5K_ONE)                                                                           \
        }                                                                                                         \
        return acc;                                                                                               \
    }

QS5K_ROWS(8, 2u)
QS5K_ROWS(4, 1u)
QS5K_ROWS(2, 1u)

static inline void qs5k_block(int32_t acc[4], const uint32_t *w, const qs5_code *x, uint32_t columns, uint32_t width)
{
    if (width == 8u) {
        qs5k_block8(acc, w, x, columns);
    } else if (width == 4u) {
        qs5k_block4(acc, w, x, columns);
    } else {
        qs5k_block2(acc, w, x, columns);
    }
}

static inline int32_t qs5k_row(int32_t acc, const uint32_t *w, const qs5_code *x, uint32_t columns, uint32_t width)
{
    if (width == 8u) {
        return qs5k_row8(acc, w, x, columns);
    }
    return width == 4u ? qs5k_row4(acc, w, x, columns) : qs5k_row2(acc, w, x, columns);
}

/* out = clip(requantize(W x + bias)); bias may be null. */
QS5K_FUNCTION void qs5k_dense(qs5_code *out, uint32_t rows, const qs5_code *x, uint32_t columns, const uint32_t *w,
                              uint32_t width, const int32_t *bias, const int16_t *M, const uint8_t *shift,
                              int32_t low, int32_t high)
{
    const uint32_t words = qs5k_words_per_row(columns, width);
    const int32_t start = qs5k_start(x, columns, width);
    const uint32_t whole = rows & ~3u;
    for (uint32_t i = 0; i < whole; i += 4u, w += 4u * words) {
        int32_t acc[4];
        for (uint32_t r = 0; r < 4u; r++) {
            acc[r] = bias ? start + bias[i + r] : start;
        }
        qs5k_block(acc, w, x, columns, width);
        for (uint32_t r = 0; r < 4u; r++) {
            out[i + r] = (qs5_code)qs5k_clip(qs5k_requantize(acc[r], M[i + r], shift[i + r]), low, high);
        }
    }
    for (uint32_t i = whole; i < rows; i++, w += words) {
        const int32_t acc = qs5k_row(bias ? start + bias[i] : start, w, x, columns, width);
        out[i] = (qs5_code)qs5k_clip(qs5k_requantize(acc, M[i], shift[i]), low, high);
    }
}

/* requantize(D u), clipped to 2^24. */
static inline int32_t qs5k_direct(int32_t u, int32_t D, int32_t M, uint32_t shift)
{
    return qs5k_clip(qs5k_requantize(u * D, M, shift), -16777216, 16777216);
}

/* out = clip(requantize(C x + C_reverse x_reverse + requantize(D u))); x_reverse may be null. out may not be u. */
QS5K_FUNCTION void qs5k_output(qs5_code *out, uint32_t rows, const qs5_code *x, const qs5_code *x_reverse,
                               uint32_t columns, const uint32_t *C, const uint32_t *C_reverse, uint32_t width,
                               const qs5_code *u, const int8_t *D, const int16_t *D_M, const uint8_t *D_shift,
                               const int16_t *M, const uint8_t *shift, int32_t low, int32_t high)
{
    const uint32_t words = qs5k_words_per_row(columns, width);
    const int32_t start =
        qs5k_start(x, columns, width) + (x_reverse ? qs5k_start(x_reverse, columns, width) : 0);
    const uint32_t whole = rows & ~3u;
    for (uint32_t i = 0; i < whole; i += 4u) {
        int32_t acc[4];
        for (uint32_t r = 0; r < 4u; r++) {
            acc[r] = start + qs5k_direct(u[i + r], D[i + r], D_M[i + r], D_shift[i + r]);
        }
        qs5k_block(acc, C + i * words, x, columns, width);
        if (x_reverse) {
            qs5k_block(acc, C_reverse + i * words, x_reverse, columns, width);
        }
        for (uint32_t r = 0; r < 4u; r++) {
            out[i + r] = (qs5_code)qs5k_clip(qs5k_requantize(acc[r], M[i + r], shift[i + r]), low, high);
        }
    }
    for (uint32_t i = whole; i < rows; i++) {
        int32_t acc = start + qs5k_direct(u[i], D[i], D_M[i], D_shift[i]);
        acc = qs5k_row(acc, C + i * words, x, columns, width);
        if (x_reverse) {
            acc = qs5k_row(acc, C_reverse + i * words, x_reverse, columns, width);
        }
        out[i] = (qs5_code)qs5k_clip(qs5k_requantize(acc, M[i], shift[i]), low, high);
    }
}

/* -- tables, SPEC 4.3 and 4.9 ------------------------------------------------------------------------------------ */

/* out = table[token], tokens clipped to those that there are; out = table[x - low]. One of each by type of entry. */
#define QS5K_TABLES(type)                                                                                          \
    QS5K_FUNCTION void qs5k_embedding_##type(qs5_code *out, uint32_t n, int32_t token, const type *table,           \
                                             int32_t tokens)                                                       \
    {                                                                                                              \
        const type *const row = table + (uint32_t)qs5k_clip(token, 0, tokens - 1) * n;                             \
        for (uint32_t i = 0; i < n; i++) {                                                                         \
            out[i] = (qs5_code)row[i];                                                                             \
        }                                                                                                          \
    }                                                                                                              \
    QS5K_FUNCTION void qs5k_table_##type(qs5_code *out, uint32_t n, const qs5_code *x, const type *table,           \
                                         int32_t low)                                                              \
    {                                                                                                              \
        for (uint32_t i = 0; i < n; i++) {                                                                         \
            out[i] = (qs5_code)table[x[i] - low];                                                                  \
        }                                                                                                          \
    }

QS5K_TABLES(int8_t)
QS5K_TABLES(uint8_t)
QS5K_TABLES(int16_t)
QS5K_TABLES(uint16_t)

/* -- norms, SPEC 4.4 and 4.5 ------------------------------------------------------------------------------------- */

QS5K_FUNCTION void qs5k_affine(qs5_code *out, uint32_t n, const qs5_code *x, const int16_t *M, const int32_t *offset,
                               const uint8_t *shift, int32_t low, int32_t high)
{
    for (uint32_t i = 0; i < n; i++) {
        out[i] = (qs5_code)qs5k_clip(qs5k_affine_of(x[i], M[i], offset[i], shift[i]), low, high);
    }
}

/* Bits of x: 0 for 0, else floor(log2 x) + 1. */
static inline uint32_t qs5k_bit_length(uint32_t x)
{
    uint32_t n = 0;
    for (; x != 0u; x >>= 1) {
        n++;
    }
    return n;
}

/* floor(sqrt(v)), one bit at a time. */
static inline uint32_t qs5k_sqrt(uint32_t v)
{
    uint32_t root = 0;
    for (uint32_t bit = 1u << 15; bit != 0u; bit >>= 1) {
        const uint32_t trial = root + bit;
        root = trial * trial <= v ? trial : root;
    }
    return root;
}

/* d_i = n x_i - sum x;  c_i = round(d_i / 2^t) of at most b bits;  V = sum c_i^2;  c_i 2^15 / sqrt(V), by the
 * reciprocal r = floor(2^31 / floor(sqrt(V 4^z))), V 4^z in [2^30, 2^32);  then as in qs5k_affine. Out may be x. */
QS5K_FUNCTION void qs5k_layer_norm(qs5_code *out, uint32_t n, const qs5_code *x, const int16_t *M,
                                   const int32_t *offset, const uint8_t *shift, int32_t low, int32_t high)
{
    const int32_t H = (int32_t)n;
    const uint32_t bits = (31u - qs5k_bit_length(n - 1u)) / 2u;
    int32_t sum = 0;
    uint32_t top = 0, t, V = 0, z = 0;
    int32_t r = 0;
    for (uint32_t i = 0; i < n; i++) {
        sum += x[i];
    }
    for (uint32_t i = 0; i < n; i++) {
        const int32_t d = H * x[i] - sum;
        const uint32_t size = (uint32_t)(d < 0 ? -d : d);
        top = size > top ? size : top;
    }
    t = qs5k_bit_length(top) > bits ? qs5k_bit_length(top) - bits : 0u;
    for (uint32_t i = 0; i < n; i++) {
        const int32_t c = qs5k_shift(H * x[i] - sum, (int32_t)t);
        V += (uint32_t)(c * c);
    }
    if (V != 0u) {
        z = (32u - qs5k_bit_length(V)) / 2u;
        r = (int32_t)(0x80000000u / qs5k_sqrt(V << (2u * z)));
    }
    for (uint32_t i = 0; i < n; i++) {
        const int32_t c = qs5k_shift(H * x[i] - sum, (int32_t)t);
        const int32_t unit = qs5k_clip(qs5k_round_shift(c * r, 16u - z), -32767, 32767);
        out[i] = (qs5_code)qs5k_clip(qs5k_affine_of(unit, M[i], offset[i], shift[i]), low, high);
    }
}

/* -- the state, SPEC 4.6 and 4.7 --------------------------------------------------------------------------------- */

/* q = clip(A q / 2^shift + x), or with requantize by M where M is not 1; q is packed re, im. */
QS5K_FUNCTION void qs5k_recurrence(qs5_code *q, uint32_t modes, const qs5_code *x, const int16_t *re,
                                   const int16_t *im, int32_t M, uint32_t shift, int32_t low, int32_t high)
{
    for (uint32_t i = 0; i < modes; i++) {
        const int32_t q_re = q[i], q_im = q[modes + i], a_re = re[i], a_im = im[i];
        int32_t next_re = a_re * q_re - a_im * q_im, next_im = a_re * q_im + a_im * q_re;
        if (M == 1) {
            next_re = qs5k_round_shift(next_re, shift);
            next_im = qs5k_round_shift(next_im, shift);
        } else {
            next_re = qs5k_requantize(next_re, M, shift);
            next_im = qs5k_requantize(next_im, M, shift);
        }
        q[i] = (qs5_code)qs5k_clip(next_re + x[i], low, high);
        q[modes + i] = (qs5_code)qs5k_clip(next_im + x[modes + i], low, high);
    }
}

/* One signed shift for both parts of a mode. */
QS5K_FUNCTION void qs5k_shift_modes(qs5_code *out, uint32_t modes, const qs5_code *x, const int8_t *shift,
                                    int32_t low, int32_t high)
{
    for (uint32_t i = 0; i < modes; i++) {
        const int32_t s = shift[i];
        out[i] = (qs5_code)qs5k_clip(qs5k_shift(x[i], s), low, high);
        out[modes + i] = (qs5_code)qs5k_clip(qs5k_shift(x[modes + i], s), low, high);
    }
}

/* -- element by element, SPEC 4.10 to 4.13 ----------------------------------------------------------------------- */

QS5K_FUNCTION void qs5k_qgelu(qs5_code *out, uint32_t n, const qs5_code *x, int32_t offset, int32_t shift,
                              int32_t low, int32_t high)
{
    for (uint32_t i = 0; i < n; i++) {
        const int32_t gate = qs5k_clip(x[i] + offset, 0, 2 * offset);
        out[i] = (qs5_code)qs5k_clip(qs5k_shift(x[i] * gate, shift), low, high);
    }
}

QS5K_FUNCTION void qs5k_hard_sigmoid(qs5_code *out, uint32_t n, const qs5_code *x, int32_t offset, int32_t M,
                                     uint32_t shift, int32_t low, int32_t high)
{
    for (uint32_t i = 0; i < n; i++) {
        const int32_t gate = qs5k_clip(x[i] + offset, 0, 2 * offset);
        out[i] = (qs5_code)qs5k_clip(qs5k_requantize(gate, M, shift), low, high);
    }
}

QS5K_FUNCTION void qs5k_multiply(qs5_code *out, uint32_t n, const qs5_code *x, const qs5_code *y, int32_t shift,
                                 int32_t low, int32_t high)
{
    for (uint32_t i = 0; i < n; i++) {
        out[i] = (qs5_code)qs5k_clip(qs5k_shift((int32_t)x[i] * y[i], shift), low, high);
    }
}

QS5K_FUNCTION void qs5k_add(qs5_code *out, uint32_t n, const qs5_code *x, const qs5_code *y, int32_t shift,
                            int32_t low, int32_t high)
{
    for (uint32_t i = 0; i < n; i++) {
        out[i] = (qs5_code)qs5k_clip(x[i] + qs5k_shift(y[i], shift), low, high);
    }
}

/* -- over the steps, SPEC 4.14 and 4.15 -------------------------------------------------------------------------- */

QS5K_FUNCTION void qs5k_copy(qs5_code *out, uint32_t n, const qs5_code *x)
{
    for (uint32_t i = 0; i < n; i++) {
        out[i] = x[i];
    }
}

QS5K_FUNCTION void qs5k_sum32(int32_t *total, uint32_t n, const qs5_code *x)
{
    for (uint32_t i = 0; i < n; i++) {
        total[i] += x[i];
    }
}

QS5K_FUNCTION void qs5k_sum64(int64_t *total, uint32_t n, const qs5_code *x)
{
    for (uint32_t i = 0; i < n; i++) {
        total[i] += x[i];
    }
}

/* floor((total + floor(steps / 2)) / steps), steps < 2^31. C rounds a quotient towards zero, hence the correction. */
QS5K_FUNCTION void qs5k_mean32(qs5_code *out, uint32_t n, const int32_t *total, uint32_t steps)
{
    for (uint32_t i = 0; i < n; i++) {
        const int32_t sum = total[i] + (int32_t)(steps / 2u), divisor = (int32_t)steps;
        out[i] = (qs5_code)(sum / divisor - (sum % divisor < 0 ? 1 : 0));
    }
}

QS5K_FUNCTION void qs5k_mean64(qs5_code *out, uint32_t n, const int64_t *total, uint32_t steps)
{
    for (uint32_t i = 0; i < n; i++) {
        const int64_t sum = total[i] + steps / 2u, divisor = steps;
        out[i] = (qs5_code)(sum / divisor - (sum % divisor < 0 ? 1 : 0));
    }
}

/* -- rows of a stored sequence: codes of 8 bits as bytes, others as two, low byte first --------------------------- */

QS5K_FUNCTION void qs5k_save8(uint8_t *row, uint32_t n, const qs5_code *x)
{
    for (uint32_t i = 0; i < n; i++) {
        row[i] = (uint8_t)((uint32_t)x[i] & 0xFFu);
    }
}

QS5K_FUNCTION void qs5k_save16(uint8_t *row, uint32_t n, const qs5_code *x)
{
    for (uint32_t i = 0; i < n; i++) {
        row[2u * i] = (uint8_t)((uint32_t)x[i] & 0xFFu);
        row[2u * i + 1u] = (uint8_t)(((uint32_t)x[i] >> 8) & 0xFFu);
    }
}

/* Codes between low and high, fewer than 2^8 or 2^16 of them: those bits tell which one it is. */
QS5K_FUNCTION void qs5k_load8(qs5_code *out, uint32_t n, const uint8_t *row, int32_t high)
{
    for (uint32_t i = 0; i < n; i++) {
        const int32_t bits = row[i];
        out[i] = (qs5_code)(bits > high ? bits - 256 : bits);
    }
}

QS5K_FUNCTION void qs5k_load16(qs5_code *out, uint32_t n, const uint8_t *row, int32_t high)
{
    for (uint32_t i = 0; i < n; i++) {
        const int32_t bits = row[2u * i] | row[2u * i + 1u] << 8;
        out[i] = (qs5_code)(bits > high ? bits - 65536 : bits);
    }
}

QS5K_FUNCTION void qs5k_zero(qs5_code *x, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        x[i] = 0;
    }
}

/* Index of the largest, the first one of equals. */
QS5K_FUNCTION int qs5k_argmax(const qs5_code *x, uint32_t n)
{
    uint32_t best = 0;
    for (uint32_t i = 1; i < n; i++) {
        best = x[i] > x[best] ? i : best;
    }
    return (int)best;
}

#endif
