// Hello world in Node: node hello.js PORT
require("node:http")
  .createServer({ keepAliveTimeout: 600000 }, (request, response) => {
    response.writeHead(200, { "content-type": "text/plain", "content-length": 13 });
    response.end("Hello, World!");
  })
  .listen(Number(process.argv[2]), "127.0.0.1", 2048);
