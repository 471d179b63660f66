using Google.Protobuf;
using MicroVm.Shim.Api;

namespace MicroVm.Shim.Bootstrap;

/// <summary>
/// What containerd writes on standard input of <c>start</c>: BootstrapParams (2.3 and later), or the runtime's options, or nothing.
/// </summary>
internal static class BootstrapInput
{
    /// <summary>The parameters; null for the older forms. An options message has a type where parameters have the instance's id.</summary>
    /// <param name="bytes">Standard input.</param>
    /// <param name="arguments">The flags, which come in every form.</param>
    internal static BootstrapParams? Read(byte[] bytes, ShimArguments arguments)
    {
        if (bytes.Length == 0)
        {
            return null;
        }

        try
        {
            BootstrapParams parameters = BootstrapParams.Parser.ParseFrom(bytes);
            return parameters.InstanceId == arguments.Id && parameters.Namespace == arguments.Namespace ? parameters : null;
        }
        catch (InvalidProtocolBufferException)
        {
            return null;
        }
    }

    /// <summary>The answer in the form that the caller reads: a message, or the address as text, which every other version takes.</summary>
    internal static byte[] Answer(BootstrapParams? parameters, string address) => parameters is null
        ? System.Text.Encoding.UTF8.GetBytes(address)
        : new BootstrapResult { Version = 2, Address = address, Protocol = "ttrpc" }.ToByteArray();
}
