using MicroVm.Linux;
using MicroVm.Sandbox.Proxies;

namespace MicroVm.Sandbox.Runtime;

/// <summary>A container's processes that were killed for want of memory, as its process on the host counts them. Any number may watch.</summary>
public sealed class OutOfMemoryWatch
{
    private readonly string _folder;
    private long _told;
    private ControlReply _last;

    /// <summary>Watches from now on.</summary>
    /// <exception cref="SandboxException">The container's process does not answer.</exception>
    /// <exception cref="LinuxException">The container's process is gone.</exception>
    internal OutOfMemoryWatch(string folder)
    {
        _folder = folder;
        _last = Ask(null);
        _told = _last.Kills ?? 0;
    }

    /// <summary>Waits for the next; false when the container has ended.</summary>
    public bool Next()
    {
        try
        {
            while (_last.Kills <= _told)
            {
                if (_last.Ended)
                {
                    return false;
                }

                _last = Ask(_told);
            }

            _told++;
            return true;
        }
        catch (Exception e) when (e is SandboxException or LinuxException)
        {
            return false;
        }
    }

    private ControlReply Ask(long? known) => ControlClient.Call(_folder, new ControlCall { Verb = ControlVerb.OutOfMemory, Known = known });
}
