// A Raspberry Pi Pico in rp2040js: boots a UF2 file as the boot ROM does, with its UART on standard input and output.
// node rp2040_board.mjs FOLDER_OF_RP2040JS FIRMWARE.uf2

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const [folder, firmware] = process.argv.slice(2);
const { RP2040 } = await import(pathToFileURL(join(folder, "dist/esm/index.js")).href);

const FLASH = 0x10000000;
// RP2040 datasheet, 2.8.1.3.1: where the boot ROM copies the second stage, its size with the CRC, and the CRC's way.
const STAGE2 = 0x20041f00, STAGE2_BYTES = 256, POLYNOMIAL = 0x04c11db7;
const FAMILY = 0xe48bff56, BLOCK_BYTES = 512, PAGE_BYTES = 256;
// Instructions between two looks at the line.
const SLICE = 200_000;

function fail(reason) {
  console.error(reason);
  process.exit(1);
}

function loadUf2(flash, file) {
  const blocks = file.length / BLOCK_BYTES;
  for (let number = 0; number < blocks; number++) {
    const block = new DataView(file.buffer, file.byteOffset + number * BLOCK_BYTES, BLOCK_BYTES);
    const word = (index) => block.getUint32(4 * index, true);
    const right = word(0) === 0x0a324655 && word(1) === 0x9e5d5157 && word(127) === 0x0ab16f30;
    if (!right || word(2) !== 0x2000 || word(7) !== FAMILY || word(4) !== PAGE_BYTES) fail(`block ${number} is no UF2`);
    if (word(5) !== number || word(6) !== blocks) fail(`block ${number} is numbered ${word(5)} of ${word(6)}`);
    if (word(3) % PAGE_BYTES || word(3) < FLASH) fail(`block ${number} is for ${word(3).toString(16)}`);
    flash.set(new Uint8Array(block.buffer, block.byteOffset + 32, PAGE_BYTES), word(3) - FLASH);
  }
}

function crc(bytes) {
  let value = 0xffffffff;
  for (const byte of bytes) {
    value ^= byte << 24;
    for (let bit = 0; bit < 8; bit++) value = (value << 1) ^ (value < 0 ? POLYNOMIAL : 0);
  }
  return value >>> 0;
}

const chip = new RP2040();
const complain = (name, message) => fail(`${name}: ${message}`);
// A register that rp2040js hasn't, such as the UART's trigger level; all other warnings are errors of the firmware.
const warn = (name, message) => message.startsWith("Unimplemented peripheral") || complain(name, message);
chip.logger = { debug() {}, info() {}, warn, error: complain };
chip.onBreak = (code) => fail(`breakpoint ${code}`);
loadUf2(chip.flash, readFileSync(firmware));
const stage2 = chip.flash.slice(0, STAGE2_BYTES);
const stored = new DataView(stage2.buffer).getUint32(STAGE2_BYTES - 4, true);
if (crc(stage2.subarray(0, STAGE2_BYTES - 4)) !== stored) fail("the second stage's CRC is wrong: the ROM doesn't boot it");
chip.sram.set(stage2, STAGE2 - 0x20000000);
chip.core.PC = STAGE2;
chip.core.SP = STAGE2;  // the ROM's stack

const uart = chip.uart[0];
const inbox = [];
let outbox = [];
let asleep = false;
uart.onByte = (byte) => outbox.push(byte);

function work() {
  asleep = false;
  for (let count = 0; count < SLICE; count++) {
    if (inbox.length && !uart.rxFIFO.full) uart.feedByte(inbox.shift());
    chip.clock.tick((chip.core.executeInstruction() * 1e9) / chip.clkSys);
    if (chip.core.waiting) {
      // The firmware masks interrupts: they only end WFI, which rp2040js takes for their being handled. It is ended here,
      // at once where one is pending.
      chip.core.waiting = false;
      if (!(chip.core.pendingInterrupts & chip.core.enabledInterrupts)) {
        asleep = true;
        break;
      }
    }
  }
  if (outbox.length) {
    if (chip.clkSys !== 125e6 || uart.baudRate < 114000 || uart.baudRate > 116400) {
      fail(`it sends at ${uart.baudRate} baud, with a clock of ${chip.clkSys} Hz`);
    }
    process.stdout.write(Buffer.from(outbox));
    outbox = [];
  }
  if (!asleep) setImmediate(work);
}

process.stdin.on("data", (data) => {
  for (const byte of data) inbox.push(byte);
  if (asleep) {
    asleep = false;
    setImmediate(work);
  }
});
process.stdin.on("end", () => process.exit(0));
work();
