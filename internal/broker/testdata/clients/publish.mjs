// Publishes one submission with the key of a form, and ends when it is on disk. No packages.
//
//   NATS=127.0.0.1:4222 FORM=guide KEY=... node publish.mjs '{"email": "ada@example.com"}'
import net from 'node:net';

const { NATS, FORM: form, KEY: key } = process.env;
const at = NATS.lastIndexOf(':'), inbox = `_INBOX_${form}.1`, body = Buffer.from(process.argv[2]);
const socket = net.connect({ host: NATS.slice(0, at), port: Number(NATS.slice(at + 1)) });
const end = (code, why) => { if (why) console.error(why); process.exitCode = code; socket.destroy(); };
let heard = '', over = false;
socket.setTimeout(10000, () => end(1, 'no answer came; it may be stored or not'));
socket.on('connect', () => {
  const hello = JSON.stringify({ user: `form-${form}`, pass: key, verbose: false, pedantic: false });
  socket.write(`CONNECT ${hello}\r\nSUB ${inbox} 1\r\nPUB lodestone.forms.${form} ${inbox} ${body.length}\r\n`);
  socket.write(body);
  socket.write('\r\n');
});
socket.on('data', data => {
  const lines = (heard + data).split('\r\n');
  heard = lines.pop();
  for (const line of lines) {
    if (line === 'PING') socket.write('PONG\r\n');
    if (line.startsWith('-ERR')) { over = true; end(1, line); }
    if (line.startsWith('{')) { // the answer to the submission
      const { error } = JSON.parse(line);
      over = true;
      end(error ? 1 : 0, error && JSON.stringify(error));
    }
  }
});
socket.on('error', e => { over = true; end(1, e.message); });
socket.on('close', () => { if (!over) end(1, 'the connection ended before the answer came; it may be stored or not'); });
