// The OAuth server of tests/client_credentials.rs: oidc-provider with one client, tokens for ten minutes.
import { createServer } from 'node:http';
import Provider from 'oidc-provider';

const client = {
  client_id: 'calls app',
  client_secret: 's3cr3t+with/odd:characters%&=',
  grant_types: ['client_credentials'],
  redirect_uris: [],
  response_types: [],
  scope: 'calls:read',
};
const server = createServer();
server.listen(0, '127.0.0.1', () => {
  const origin = `http://127.0.0.1:${server.address().port}`;
  const provider = new Provider(origin, {
    clients: [client],
    scopes: ['calls:read', 'calls:write'], // the client may have the first
    features: {
      clientCredentials: { enabled: true },
      devInteractions: { enabled: false },
      introspection: { enabled: true },
      revocation: { enabled: true },
    },
    ttl: { ClientCredentials: 600 },
  });
  server.on('request', provider.callback());
  console.log(origin);
});
// Whoever started it holds the other end, and so it never outlives them.
process.stdin.resume().on('end', () => process.exit());
