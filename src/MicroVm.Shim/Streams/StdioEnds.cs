using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Sandbox;

namespace MicroVm.Shim.Streams;

/// <summary>The host's ends of a process's streams, opened as containerd asks for them; null where there is none.</summary>
internal sealed class StdioEnds : IDisposable
{
    private const uint LogMode = 0b110_100_100;
    private const uint FolderMode = 0b111_101_101;
    private readonly List<SafeFd> _kept = [];
    private readonly Lock _lock = new();
    private SafeFd? _heldInput;
    private LogDriver? _driver;

    private StdioEnds()
    {
    }

    /// <summary>Read for the process's standard input.</summary>
    internal SafeFd? Input { get; private set; }

    /// <summary>Takes its standard output.</summary>
    internal SafeFd? Output { get; private set; }

    /// <summary>Takes its standard error.</summary>
    internal SafeFd? Error { get; private set; }

    /// <summary>Output and error are one file: the guest is to have one pipe for both, which keeps their order.</summary>
    internal bool IsOne { get; private set; }

    /// <summary>Opens the ends.</summary>
    /// <exception cref="SandboxException">One cannot be opened, has an unknown scheme, or a log driver does not start.</exception>
    internal static StdioEnds Open(StdioUris uris, ProcessName name)
    {
        StdioEnds ends = new();
        try
        {
            ends.OpenInput(uris.Input);
            ends.OpenOutputs(uris, name);
            return ends;
        }
        catch (LinuxException e)
        {
            ends.Dispose();
            throw new SandboxException($"a stream of the process cannot be opened: {e.Message}", e);
        }
        catch
        {
            ends.Dispose();
            throw;
        }
    }

    /// <summary>Standard input ends when its last writer has: this end, which outlives clients that go away, is one of them no more.</summary>
    internal void CloseInput()
    {
        lock (_lock)
        {
            _heldInput?.Dispose();
            _heldInput = null;
        }
    }

    /// <summary>The process has closed its output: so is the end, whose reader is told.</summary>
    internal void EndOutput() => End(Output, withError: IsOne);

    /// <summary>The same for standard error.</summary>
    internal void EndError() => End(Error, withError: false);

    /// <inheritdoc/>
    public void Dispose()
    {
        CloseInput();
        lock (_lock)
        {
            Input?.Dispose();
            Output?.Dispose();
            Error?.Dispose();
            _kept.ForEach(f => f.Dispose());
            _kept.Clear();
        }

        _driver?.Dispose();
    }

    private void End(SafeFd? fd, bool withError)
    {
        lock (_lock)
        {
            fd?.Dispose();
            if (withError)
            {
                Error?.Dispose();
            }

            // A FIFO's reader sees the end when all of our ends are closed, those held for reading included, which are no writers.
        }
    }

    private void OpenInput(string uri)
    {
        if (uri.Length == 0)
        {
            return;
        }

        (string scheme, string path, _) = StreamUri.Split(uri);
        if (scheme != StreamUri.Fifo)
        {
            throw new SandboxException($"standard input cannot be \"{uri}\": it is a FIFO");
        }

        Input = SafeFd.From(Libc.open(path, Libc.O_RDONLY | Libc.O_NONBLOCK | Libc.O_CLOEXEC, 0), "open", path);
        _heldInput = SafeFd.From(Libc.open(path, Libc.O_WRONLY | Libc.O_NONBLOCK | Libc.O_CLOEXEC, 0), "open", path);
    }

    private void OpenOutputs(StdioUris uris, ProcessName name)
    {
        if (uris.Output.Length > 0 && StreamUri.Split(uris.Output) is var (scheme, path, arguments) && scheme != StreamUri.Fifo)
        {
            OpenLog(scheme, path, arguments, uris.Output, name);
            return;
        }

        Output = OpenFifo(uris.Output);
        Error = uris.Terminal ? null : OpenFifo(uris.Error);
    }

    private void OpenLog(string scheme, string path, IReadOnlyList<string> arguments, string uri, ProcessName name)
    {
        switch (scheme)
        {
            case StreamUri.File:
                HostFile.MakeFolder(Path.GetDirectoryName(path) ?? "/", FolderMode);
                Output = SafeFd.From(Libc.open(path, Libc.O_WRONLY | Libc.O_CREAT | Libc.O_APPEND | Libc.O_CLOEXEC, LogMode), "open", path);
                Error = Output.Duplicate();
                IsOne = true;
                break;
            case StreamUri.Binary:
                _driver = LogDriver.Start(path, arguments, name);
                (Output, Error) = (_driver.Output, _driver.Error);
                break;
            default:
                throw new SandboxException($"standard output cannot be \"{uri}\": a stream is a FIFO, file:// or binary://");
        }
    }

    /// <summary>
    /// Opens a FIFO for writing. It is open for reading, too: with no reader, a write waits in place of failing, and a client that comes
    /// back finds the process as it was.
    /// </summary>
    private SafeFd? OpenFifo(string uri)
    {
        if (uri.Length == 0)
        {
            return null;
        }

        (string scheme, string path, _) = StreamUri.Split(uri);
        if (scheme != StreamUri.Fifo)
        {
            throw new SandboxException($"standard error cannot be \"{uri}\" where standard output is a FIFO");
        }

        _kept.Add(SafeFd.From(Libc.open(path, Libc.O_RDONLY | Libc.O_NONBLOCK | Libc.O_CLOEXEC, 0), "open", path));
        return SafeFd.From(Libc.open(path, Libc.O_WRONLY | Libc.O_NONBLOCK | Libc.O_CLOEXEC, 0), "open", path);
    }
}
