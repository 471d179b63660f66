using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Vmm.Machine;
using MicroVm.VmmControl;

namespace MicroVm.Vmm.Control;

/// <summary>The control socket: one connection that was handed over, or a listener. Owns all of them. Device thread only.</summary>
public sealed class VmmControlServer : IEventHandler, IDisposable
{
    private const int MaxConnections = 16;
    private readonly EventLoop _loop;
    private readonly ControlOperations _operations;
    private readonly List<ControlConnection> _connections = [];
    private readonly SafeFd? _listener;
    private readonly string? _path;

    private VmmControlServer(EventLoop loop, ControlOperations operations, SafeFd? listener, string? path)
    {
        _loop = loop;
        _operations = operations;
        _listener = listener;
        _path = path;
    }

    /// <summary>Serves a connected socket (descriptor), or listens at a path, which is removed in the end.</summary>
    /// <exception cref="ConfigException">The descriptor is not open, or the path cannot be listened at.</exception>
    public static VmmControlServer Start(FileReference control, EventLoop loop, ControlOperations operations)
    {
        ArgumentNullException.ThrowIfNull(control);
        ArgumentNullException.ThrowIfNull(loop);
        FileOpener.CheckReference(control, "control");
        if (control.Path is not { } path)
        {
            VmmControlServer single = new(loop, operations, null, null);
            single.Add(FileOpener.Open(control, 0, "control"));
            return single;
        }

        try
        {
            VmmControlServer server = new(loop, operations, UnixSocket.Listen(path), path);
            loop.Add(server._listener!, Libc.EPOLLIN, server);
            return server;
        }
        catch (LinuxException e)
        {
            throw new ConfigException($"control: {e.Message}");
        }
    }

    /// <inheritdoc/>
    public void OnReady(SafeFd fd, uint events)
    {
        if (UnixSocket.TryAccept(fd, out _) is not { } accepted)
        {
            return;
        }

        if (_connections.Count == MaxConnections)
        {
            accepted.Dispose();
            return;
        }

        Add(accepted);
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        foreach (ControlConnection connection in _connections)
        {
            connection.Dispose();
        }

        if (_listener is not null)
        {
            _loop.Remove(_listener);
            _listener.Dispose();
            File.Delete(_path!);
        }
    }

    private void Add(SafeFd socket) => _connections.Add(new ControlConnection(socket, _loop, _operations, c => _connections.Remove(c)));
}
