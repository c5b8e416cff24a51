/* A stand-in for libloragw 2.1.0: the same calls and structures, written from the published layout, no radio.
 *
 * It is ruled by files in the directory that SX1302_STANDIN names: `mode` holds one word (what fails), `uplink`
 * makes the next fetch give one LoRa and one FSK frame, `air` has frames in hexadecimal, one a line, of which each
 * fetch gives sixteen, `flood` makes every fetch give sixteen, `sent` receives a line for each frame that was sent.
 */
#include <math.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#ifndef STANDIN_VERSION
#define STANDIN_VERSION "Version: 2.1.0;"
#endif

struct board { bool lorawan_public; uint8_t clksrc; bool full_duplex; int com_type; char com_path[64]; };
struct tcomp { float a, b, c, d, e; };
struct rxrf { bool enable; uint32_t freq_hz; float rssi_offset; struct tcomp rssi_tcomp; int type; bool tx_enable;
              bool single_input_mode; };
struct rxif { bool enable; uint8_t rf_chain; int32_t freq_hz; uint8_t bandwidth; uint32_t datarate;
              uint8_t sync_word_size; uint64_t sync_word; bool implicit_hdr; uint8_t implicit_payload_length;
              bool implicit_crc_en; uint8_t implicit_coderate; };
struct demod { uint8_t multisf_datarate; };
struct gain { int8_t rf_power; uint8_t dig_gain, pa_gain, dac_gain, mix_gain; int8_t offset_i, offset_q;
              uint8_t pwr_idx; };
struct lut { struct gain lut[16]; uint8_t size; };
struct ftime { bool enable; int mode; };
struct rx { uint32_t freq_hz; int32_t freq_offset; uint8_t if_chain, status; uint32_t count_us; uint8_t rf_chain,
            modem_id, modulation, bandwidth; uint32_t datarate; uint8_t coderate; float rssic, rssis, snr, snr_min,
            snr_max; uint16_t crc, size; uint8_t payload[256]; bool ftime_received; uint32_t ftime; };
struct tx { uint32_t freq_hz; uint8_t tx_mode; uint32_t count_us; uint8_t rf_chain; int8_t rf_power;
            uint8_t modulation; int8_t freq_offset; uint8_t bandwidth; uint32_t datarate; uint8_t coderate;
            bool invert_pol; uint8_t f_dev; uint16_t preamble; bool no_crc, no_header; uint16_t size;
            uint8_t payload[256]; };

struct lbtchan { uint32_t freq_hz; uint8_t bandwidth; int scan_time_us; uint16_t transmit_time_ms; };
struct lbt { bool enable; int8_t rssi_target; uint8_t nb_channel; struct lbtchan channels[16]; };
struct sx1261 { bool enable; char spi_path[64]; int8_t rssi_offset; struct lbt lbt; };

static struct board board;
static struct sx1261 sx1261;

static const char *place(const char *name) {
    static char path[512];
    snprintf(path, sizeof path, "%s/%s", getenv("SX1302_STANDIN"), name);
    return path;
}

static bool mode(const char *word) {
    char text[32] = "";
    FILE *file = fopen(place("mode"), "r");
    if (file == NULL) return false;
    if (fgets(text, sizeof text, file) == NULL) text[0] = 0;
    fclose(file);
    return strcmp(text, word) == 0;
}

static bool once(const char *word) { return mode(word) && unlink(place("mode")) == 0; }
static int failing(const char *word) { return mode(word) ? -1 : 0; }

const char *lgw_version_info(void) { return STANDIN_VERSION; }
int lgw_board_setconf(struct board *conf) { board = *conf; return failing("board"); }
int lgw_rxrf_setconf(uint8_t n, struct rxrf *conf) {
    return n > 1 || (conf->enable && (conf->freq_hz < 100000000 || conf->type != 5)) ? -1 : failing("rxrf");
}
int lgw_rxif_setconf(uint8_t n, struct rxif *conf) {
    return n > 9 || conf->rf_chain > 1 || abs(conf->freq_hz) > 800000 ? -1 : failing("rxif");
}
int lgw_demod_setconf(struct demod *conf) { return conf->multisf_datarate != 0xFF ? -1 : failing("demod"); }
int lgw_txgain_setconf(uint8_t n, struct lut *conf) {
    for (int i = 0; i < conf->size; i++)
        if (conf->lut[i].mix_gain < 5 || conf->lut[i].pwr_idx > 22) return -1;
    return n != 0 || conf->size != 16 || conf->lut[15].rf_power != 27 ? -1 : failing("txgain");
}
int lgw_ftime_setconf(struct ftime *conf) { return !conf->enable || conf->mode != 1 ? -1 : failing("ftime"); }
int lgw_sx1261_setconf(struct sx1261 *conf) {
    sx1261 = *conf;
    for (int i = 0; i < conf->lbt.nb_channel; i++)
        if (conf->lbt.channels[i].bandwidth != 4 || conf->lbt.channels[i].scan_time_us != 5000) return -1;
    return !conf->enable || strcmp(conf->spi_path, "/dev/spidev0.1") != 0 ? -1 : failing("sx1261");
}
int lgw_start(void) {
    if (once("hangstart")) for (;;) pause();
    printf("stand-in starts on %s\n", board.com_path);
    return failing("start");
}
int lgw_stop(void) { FILE *file = fopen(place("stopped"), "w"); if (file) fclose(file); return failing("stop"); }
int lgw_get_eui(uint64_t *eui) { *eui = 0xFEDCBA9876543210u; return failing("eui"); }
int lgw_get_temperature(float *value) { *value = mode("hot") ? NAN : 31.5f; return failing("temperature"); }
int lgw_get_instcnt(uint32_t *value) {
    static uint32_t last;
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    if (!mode("frozen")) last = (uint32_t)(now.tv_sec * 1000000u + now.tv_nsec / 1000);
    *value = last;
    return failing("counter");
}
/* The PPS: every whole second of the same clock. */
int lgw_get_trigcnt(uint32_t *value) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    *value = mode("nopps") ? 0 : (uint32_t)(now.tv_sec * 1000000u);
    return failing("trigcnt");
}
int lgw_spectral_scan_start(uint32_t freq_hz, uint16_t nb_scan) {
    FILE *file = fopen(place("scanning"), "w");
    if (file) fclose(file);
    return nb_scan != 1000 || freq_hz < 867100000 || freq_hz > 867500000 ? -1 : failing("scanstart");
}
int lgw_spectral_scan_get_status(int *status) {
    *status = mode("scanslow") ? 1 : 3;
    return failing("scanstatus");
}
int lgw_spectral_scan_get_results(int16_t levels[33], uint16_t results[33]) {
    for (int i = 0; i < 33; i++) {
        levels[i] = (int16_t)(-4 * i);
        results[i] = mode("scanempty") ? 0 : i == 26 ? 900 : i == 15 ? 100 : 0;
    }
    return failing("scanresults");
}
int lgw_spectral_scan_abort(void) {
    FILE *file = fopen(place("aborted"), "w");
    if (file) fclose(file);
    return failing("scanabort");
}

int lgw_status(uint8_t chain, uint8_t select, uint8_t *code) {
    *code = mode("busy") ? 3 : 2;
    return chain > 1 || select != 1 ? -1 : failing("status");
}
uint32_t lgw_time_on_air(const struct tx *packet) { return packet->size == 0 ? 0 : 50; }

static void heard(struct rx *packet, const uint8_t *payload, size_t size) {
    static uint32_t count;
    *packet = (struct rx){.freq_hz = 868100000, .status = 0x10, .count_us = count += 100000, .modulation = 0x10,
        .bandwidth = 4, .datarate = 7, .coderate = 1, .rssic = -60.0f, .rssis = -60.0f, .snr = 8.0f,
        .size = (uint16_t)size};
    memcpy(packet->payload, payload, size);
}

/* Frames from the file `air`, which is gone once all of them were given. */
static int from_air(uint8_t limit, struct rx *packets) {
    static FILE *air;
    static char line[1024];
    int found = 0;
    if (air == NULL && (air = fopen(place("air"), "r")) == NULL) return 0;
    while (found < limit && fgets(line, sizeof line, air) != NULL) {
        uint8_t payload[256];
        size_t size = 0;
        unsigned byte;
        while (size < 255 && sscanf(line + 2 * size, "%2x", &byte) == 1) payload[size++] = (uint8_t)byte;
        heard(&packets[found++], payload, size);
    }
    if (found < limit) {
        fclose(air);
        air = NULL;
        unlink(place("air"));
    }
    return found;
}

static int flood(uint8_t limit, struct rx *packets) {
    static uint64_t number;
    for (int i = 0; i < limit; i++, number++) heard(&packets[i], (const uint8_t *)&number, sizeof number);
    return limit;
}

int lgw_receive(uint8_t limit, struct rx *packets) {
    if (once("hang")) for (;;) pause();
    if (once("abort")) abort();
    if (once("gone")) {
        for (int i = 0; i < 100000; i++) printf("ERROR: failed to write command header\n");
        raise(11);
    }
    if (mode("fetch")) return -1;
    if (mode("toomany")) return limit + 1;
    if (access(place("flood"), F_OK) == 0) return flood(limit, packets);
    if (unlink(place("uplink")) != 0) return from_air(limit, packets);
    memset(packets, 0, 2 * sizeof *packets);
    packets[0] = (struct rx){.freq_hz = 868100000, .freq_offset = -1234, .if_chain = 2, .status = 0x10,
        .count_us = 4294967290u, .rf_chain = 1, .modem_id = 3, .modulation = 0x10, .bandwidth = 4, .datarate = 7,
        .coderate = 2, .rssic = -57.5f, .rssis = -58.5f, .snr = mode("nan") ? NAN : 8.5f, .size = 255,
        .ftime_received = true, .ftime = 999999999};
    for (int i = 0; i < 255; i++) packets[0].payload[i] = (uint8_t)i;
    packets[1] = (struct rx){.freq_hz = 868800000, .if_chain = 9, .status = 0x11, .count_us = 5, .modem_id = 17,
        .modulation = 0x20, .datarate = 50000, .rssic = -90.0f, .size = mode("huge") ? 60000 : 3,
        .payload = {9, 8, 7}};
    return 2;
}

int lgw_send(struct tx *p) {
    if (mode("send")) return -1;
    if (mode("lbt")) return 1;
    FILE *file = fopen(place("sent"), "a");
    if (file == NULL) return -1;
    fprintf(file, "%u %u %u %u %d %u %u %u %u %d %u %u %d %u %02x%02x\n", p->freq_hz, p->tx_mode, p->count_us,
            p->rf_chain, p->rf_power, p->modulation, p->bandwidth, p->datarate, p->coderate, p->invert_pol, p->f_dev,
            p->preamble, p->no_crc, p->size, p->payload[0], p->payload[p->size - 1]);
    fclose(file);
    return 0;
}

/* Sizes and last offsets, one structure each, for a check of the other side's definitions. */
const char *standin_layout(void) {
    static char text[1024];
    snprintf(text, sizeof text,
        "Board %zu com_path %zu\nRssiTcomp %zu coeff_e %zu\nRxRf %zu single_input_mode %zu\n"
        "RxIf %zu implicit_coderate %zu\nDemod %zu multisf_datarate %zu\nTxGain %zu pwr_idx %zu\n"
        "TxGainLut %zu size %zu\nFtime %zu mode %zu\nPktRx %zu ftime %zu\nPktTx %zu payload %zu\n"
        "LbtChannel %zu transmit_time_ms %zu\nLbt %zu channels %zu\nSx1261 %zu lbt_conf %zu\n",
        sizeof(struct board), offsetof(struct board, com_path), sizeof(struct tcomp), offsetof(struct tcomp, e),
        sizeof(struct rxrf), offsetof(struct rxrf, single_input_mode), sizeof(struct rxif),
        offsetof(struct rxif, implicit_coderate), sizeof(struct demod), offsetof(struct demod, multisf_datarate),
        sizeof(struct gain), offsetof(struct gain, pwr_idx), sizeof(struct lut), offsetof(struct lut, size),
        sizeof(struct ftime), offsetof(struct ftime, mode), sizeof(struct rx), offsetof(struct rx, ftime),
        sizeof(struct tx), offsetof(struct tx, payload), sizeof(struct lbtchan),
        offsetof(struct lbtchan, transmit_time_ms), sizeof(struct lbt), offsetof(struct lbt, channels),
        sizeof(struct sx1261), offsetof(struct sx1261, lbt));
    return text;
}
