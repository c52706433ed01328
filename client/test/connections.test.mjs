/** HTTP as it may come: in pieces, in chunks, over sockets, from servers that hang up. */
import assert from 'node:assert/strict'
import { createServer as createHttp } from 'node:http'
import { createServer } from 'node:net'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { AnswerReader } from '../dist/esm/answer-reader.js'
import { Connections, Foreign } from '../dist/esm/connections.js'

const get = { method: 'GET', path: '/x', headers: '' }
const post = (body) => ({ method: 'POST', path: '/x', headers: 'a: b\r\n', body })

/** Runs a server for as long as `use` takes. */
async function during(server, where, use) {
  await new Promise((resolve) => server.listen(...where, resolve))
  try {
    await use(server.address())
  } finally {
    server.closeAllConnections?.()
    server.close()
  }
}

/** A server that answers each request with bytes of its own making. */
function scripted(answer, { hangUp = false } = {}) {
  const server = createServer((socket) => {
    server.connections++
    socket.on('error', () => {})
    socket.on('data', async () => {
      server.requests++
      for (const part of [].concat(answer)) {
        socket.write(part)
        await new Promise((resolve) => setTimeout(resolve, 2))
      }
      if (hangUp) socket.end()
    })
  })
  return Object.assign(server, { connections: 0, requests: 0 })
}

async function withScripted(answer, options, use) {
  const server = scripted(answer, options)
  await during(server, [0, '127.0.0.1'], async ({ port }) => {
    const connections = new Connections(new URL(`http://127.0.0.1:${port}/prefix/`))
    await use(connections, server)
    connections.close()
  })
}

const ANSWERS = [
  ['HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX: y\r\n\r\nhello', 'hello'],
  ['HTTP/1.1 200 OK\r\ncontent-length:0\r\n\r\n', ''],
  ['HTTP/1.1 204 No Content\r\n\r\n', ''],
  ['HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6;ext=1\r\n world\r\n0\r\n\r\n', 'hello world'],
  ['HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nA\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\n', '0123456789'],
  ['HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103\r\nLink: x\r\n\r\nHTTP/1.1 200\r\ncontent-length: 2\r\n\r\nok', 'ok'],
]

test('an answer is put together from whatever pieces it comes in', () => {
  for (const [text, body] of ANSWERS) {
    for (let size = 1; size <= text.length; size++) {
      const reader = new AnswerReader()
      const pieces = []
      for (let from = 0; from < text.length; from += size) pieces.push(Buffer.from(text.slice(from, from + size)))
      const whole = pieces.map((piece) => reader.push(piece))
      assert.deepEqual(whole, pieces.map((_, index) => index === pieces.length - 1), `${size} of ${text}`)
      assert.equal(reader.answer.body.toString(), body)
      assert.equal(reader.keepsAlive, true)
    }
  }
})

test('headers are found whatever their case, and only by their whole name', () => {
  const reader = new AnswerReader()
  const lines = ['HTTP/1.1 503 X', 'X-Retry-After: 9', 'RETRY-After:  2 ', 'Connection: Close', 'content-length: 0']
  reader.push(Buffer.from(`${lines.join('\r\n')}\r\n\r\n`))
  const { status, headers } = reader.answer
  assert.equal(status, 503)
  assert.deepEqual(['retry-after', 'after', 'x'].map((name) => headers.get(name)), ['2', undefined, undefined])
  assert.equal(reader.keepsAlive, false)
})

test('what is no answer is an error, not half of one', async () => {
  const wrong = [
    'SSH-2.0-x\r\n\r\n',
    'HTTP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n',
    'HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nxy',
    'HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n',
    'HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n',
    'HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nmore',
    `HTTP/1.1 200 OK\r\nx: ${'y'.repeat(70_000)}`,
  ]
  for (const text of wrong) assert.throws(() => new AnswerReader().push(Buffer.from(text)), Error, text.slice(0, 60))
  const cut = [
    'HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf',
    'HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhel',
  ]
  for (const text of cut) {
    await withScripted(text, { hangUp: true }, (connections) => assert.rejects(connections.exchange(get, 1000)))
  }
})

test('an answer without a length ends with its connection', () =>
  withScripted(['HTTP/1.1 200 OK\r\n\r\n', 'hello ', 'world'], { hangUp: true }, async (connections) => {
    assert.equal((await connections.exchange(get, 1000)).body.toString(), 'hello world')
  }))

test('one connection serves one exchange after the other; exchanges at a time have one each', () =>
  withScripted('HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}', {}, async (connections, server) => {
    for (let n = 0; n < 20; n++) await connections.exchange(get, 1000)
    assert.equal(server.connections, 1)
    await Promise.all(Array.from({ length: 100 }, () => connections.exchange(get, 5000)))
    assert.ok(server.connections <= 32, `${server.connections} connections`)
    assert.equal(server.requests, 120)
  }))

test('a connection whose answer was another one than expected is not used again', () =>
  withScripted('HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}', {}, async (connections, server) => {
    await connections.exchange(get, 1000)
    const foreign = () => {
      throw new Foreign('of something else')
    }
    await assert.rejects(connections.ask(get, foreign, 1000), Foreign)
    assert.equal(server.connections, 1)
    await connections.exchange(get, 1000)
    assert.equal(server.connections, 2)
  }))

test('a connection that was closed while idle is replaced; one that dies under a request is not', async () => {
  const server = createHttp({ keepAliveTimeout: 1 }, (_request, response) => response.end('{}'))
  await during(server, [0, '127.0.0.1'], async ({ port }) => {
    const connections = new Connections(new URL(`http://127.0.0.1:${port}`))
    for (let n = 0; n < 5; n++) {
      assert.equal((await connections.exchange(get, 1000)).status, 200)
      server.closeAllConnections()
      if (n % 2) await new Promise((resolve) => setTimeout(resolve, 20))
    }
    connections.close()
  })
  const dying = createServer((socket) => socket.on('error', () => {}).once('data', () => socket.destroy()))
  await during(dying, [0, '127.0.0.1'], async ({ port }) => {
    await assert.rejects(new Connections(new URL(`http://127.0.0.1:${port}`)).exchange(get, 1000))
  })
})

test('a late answer, an abort and an absent server are errors', async () => {
  await withScripted([], {}, async (connections) => {
    await assert.rejects(connections.exchange(get, 50), /no answer in time/)
    const abort = new AbortController()
    setTimeout(() => abort.abort(), 20)
    await assert.rejects(connections.exchange(get, 5000, abort.signal), /aborted/)
    await assert.rejects(connections.exchange(get, 5000, abort.signal))
  })
  await assert.rejects(new Connections(new URL('http://127.0.0.1:1')).exchange(get, 1000), /ECONNREFUSED/)
  assert.throws(() => new Connections(new URL('ftp://127.0.0.1')), TypeError)
})

test('when a kept connection stays silent, the others of its age are given up with it', async () => {
  let silent = false
  const server = createServer((socket) => {
    const number = server.made++
    socket.on('error', () => {})
    socket.on('data', () => {
      if (!silent || number >= 5) socket.write('HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n')
    })
  })
  server.made = 0
  await during(server, [0, '127.0.0.1'], async ({ port }) => {
    const connections = new Connections(new URL(`http://127.0.0.1:${port}`))
    await Promise.all(Array.from({ length: 5 }, () => connections.exchange(get, 5000)))
    assert.equal(server.made, 5)
    silent = true
    await assert.rejects(connections.exchange(get, 100), /no answer in time/)
    await connections.exchange(get, 5000)
    assert.equal(server.made, 6)
    connections.close()
  })
})

test('a connection that is idle for long is ended', { timeout: 30_000 }, async () => {
  let ended
  const end = new Promise((resolve) => (ended = resolve))
  const server = createServer((socket) => {
    socket.on('error', () => {})
    socket.on('close', ended)
    socket.on('data', () => socket.write('HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n'))
  })
  await during(server, [0, '127.0.0.1'], async ({ port }) => {
    const connections = new Connections(new URL(`http://127.0.0.1:${port}`), {}, 50)
    await connections.exchange(get, 5000)
    await end
    assert.equal((await connections.exchange(get, 5000)).status, 200)
    connections.close()
  })
})

async function echo(request, response) {
  const chunks = []
  for await (const chunk of request) chunks.push(chunk)
  response.setHeader('x-path', request.url)
  response.end(Buffer.concat(chunks))
}

const TEXTS = ['{"a":"plain"}', '{"ä":"😀"}', 'x'.repeat(3_000_000), 'ä😀'.repeat(40_000)]

test('each exchange of a connection has its own time', async () => {
  // Answers every other request.
  const server = createServer((socket) => {
    let requests = 0
    socket.on('error', () => {})
    socket.on('data', () => requests++ % 2 === 0 && socket.write('HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n'))
  })
  await during(server, [0, '127.0.0.1'], async ({ port }) => {
    for (const [first, second] of [
      [100, 300],
      [5000, 100],
    ]) {
      const connections = new Connections(new URL(`http://127.0.0.1:${port}`))
      await connections.exchange(get, first)
      const began = performance.now()
      await assert.rejects(connections.exchange(get, second), /no answer in time/)
      const took = performance.now() - began
      assert.ok(took > second - 5 && took < second + 1000, `${took} ms of ${second}`)
      connections.close()
    }
  })
})

test('over TCP, below a path', () =>
  during(createHttp(echo), [0, '127.0.0.1'], async ({ port }) => {
    const connections = new Connections(new URL(`http://127.0.0.1:${port}/below/`))
    for (const text of TEXTS) {
      const { body, headers } = await connections.exchange(post(text), 5000)
      assert.equal(body.toString(), text)
      assert.equal(headers.get('x-path'), '/below/x')
    }
    connections.close()
  }))

test('over a unix socket', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'authstore socket-'))
  const path = join(folder, 'the.sock')
  await during(createHttp(echo), [path], async () => {
    const connections = new Connections(new URL(`unix:${path}`))
    for (const text of TEXTS) assert.equal((await connections.exchange(post(text), 5000)).body.toString(), text)
    connections.close()
  })
  await rm(folder, { recursive: true })
})

test('who gave up while waiting for a free connection asks nothing', async () => {
  const held = []
  const server = createHttp((_request, response) => held.push(response))
  await during(server, [0, '127.0.0.1'], async ({ port }) => {
    const connections = new Connections(new URL(`http://127.0.0.1:${port}`))
    const first = Array.from({ length: 32 }, () => connections.exchange(get, 10_000))
    const abort = new AbortController()
    const given = assert.rejects(connections.exchange(get, 10_000, abort.signal), { name: 'AbortError' })
    const last = connections.exchange(get, 10_000)
    while (held.length < 32) await new Promise((resolve) => setTimeout(resolve, 5))
    abort.abort()
    for (const response of held.splice(0)) response.end('{}')
    await Promise.all([...first, given])
    while (held.length < 1) await new Promise((resolve) => setTimeout(resolve, 5))
    held[0].end('{}')
    await last
    assert.equal(held.length, 1)
    connections.close()
  })
})

test('a connection that could not even be begun takes no place', async () => {
  const connections = new Connections(new URL('https://127.0.0.1:1'), { cert: 'no certificate' })
  for (let n = 0; n < 40; n++) await assert.rejects(connections.exchange(get, 1000), /PEM/)
})
