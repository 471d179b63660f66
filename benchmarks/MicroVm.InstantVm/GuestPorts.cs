using System.Globalization;
using System.Text;
using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Protocol.Agent;
using MicroVm.Ttrpc;

namespace MicroVm.InstantVm;

/// <summary>A guest's vsock ports as the hybrid socket has them: the agent's service, and streams that nobody reads.</summary>
internal sealed unsafe class GuestPorts : IDisposable
{
    private const int LongestLine = 32;
    private readonly List<SafeFd> _streams = [];
    private readonly TtrpcServer _server;
    private readonly SafeFd _listener;
    private uint _hostPort = 1 << 30;

    internal GuestPorts(SafeFd listener, EventLoop loop)
    {
        _listener = listener;
        _server = new TtrpcServer(loop, new InstantAgent(CloseStreams));
        _server.Listen(listener, Accept);
    }

    public void Dispose()
    {
        _server.Dispose();
        CloseStreams();
        _listener.Dispose();
    }

    private SafeFd? Accept(SafeFd listener)
    {
        SafeFd? connection = UnixSocket.Accept(listener);
        if (connection is null)
        {
            return null;
        }

        string port = ReadLine(connection);
        byte[] answer = Encoding.ASCII.GetBytes(string.Create(CultureInfo.InvariantCulture, $"OK {_hostPort++}\n"));
        fixed (byte* p = answer)
        {
            Check.Result(Libc.send(connection.Value, p, (nuint)answer.Length, Libc.MSG_NOSIGNAL), "send");
        }

        if (port == string.Create(CultureInfo.InvariantCulture, $"CONNECT {AgentClient.ServicePort}"))
        {
            return connection;
        }

        _streams.Add(connection);
        return null;
    }

    private static string ReadLine(SafeFd connection)
    {
        StringBuilder line = new();
        while (line.Length < LongestLine)
        {
            Libc.pollfd pfd = new() { fd = connection.Value, events = Libc.POLLIN };
            _ = Libc.poll(&pfd, 1, -1);
            byte b;
            if (Check.Result(Libc.recv(connection.Value, &b, 1, 0), "recv") == 0 || b == '\n')
            {
                break;
            }

            _ = line.Append((char)b);
        }

        return line.ToString();
    }

    private void CloseStreams()
    {
        _streams.ForEach(s => s.Dispose());
        _streams.Clear();
    }
}
