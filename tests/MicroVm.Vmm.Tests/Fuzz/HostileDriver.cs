using System.Buffers.Binary;
using MicroVm.Linux;
using MicroVm.Memory;
using MicroVm.Tests.Shared;
using MicroVm.Virtio;
using MicroVm.Virtio.Mmio;

namespace MicroVm.Vmm.Tests.Fuzz;

/// <summary>
/// A driver that means harm: registers in any order and width, queues anywhere, rings and requests of random bytes that it
/// changes while the device works on them. Some of what it does is right, so that it gets far.
/// </summary>
internal sealed class HostileDriver : IDisposable
{
    private const ulong Base = 0xd000_0000;
    private const int MemorySize = 1 << 20;
    private static readonly uint[] StatusOrder = [0, 1, 3, 0xb, 0xf];
    private readonly Random _random;
    private readonly GuestMemory _memory = GuestMemory.Create(MemorySize);
    private readonly EventLoop _loop = new();
    private readonly FakeRouting _routing = new();
    private readonly MmioTransport _transport;
    private readonly ulong _features;

    /// <summary>Drives the device that <paramref name="make"/> makes; of <paramref name="features"/> it takes some.</summary>
    public HostileDriver(Random random, Func<EventLoop, VirtioDevice> make, ulong features = 0)
    {
        _random = random;
        _features = features;
        _transport = new MmioTransport(make(_loop), _memory, _loop, _routing, Base, 7);
    }

    /// <summary>A few hundred steps.</summary>
    public void Attack()
    {
        if (_random.Next(4) != 0)
        {
            SetUpProperly();
        }

        Span<byte> data = stackalloc byte[8];
        for (int steps = _random.Next(50, 400); steps > 0; steps--)
        {
            switch (_random.Next(10))
            {
                case 0:
                    WriteRandomRegister();
                    break;
                case 1:
                    _transport.Read((ulong)_random.Next((int)MmioRegister.WindowLength), data[..(1 << _random.Next(4))]);
                    break;
                case 2:
                    Write(MmioRegister.Status, StatusOrder[_random.Next(StatusOrder.Length)]);
                    break;
                case 3 or 4:
                    ScribbleRings();
                    break;
                case 5:
                    ScribbleData();
                    break;
                case 6 when _random.Next(8) == 0:
                    SetUpProperly();
                    break;
                default:
                    Kick();
                    break;
            }

            _ = _loop.RunOnce(0);
        }
    }

    public void Dispose()
    {
        _transport.Dispose();
        _loop.Dispose();
        _memory.Dispose();
    }

    private static ulong Table(int queue) => (ulong)(queue + 1) << 16;

    private void Write(uint register, uint value)
    {
        Span<byte> data = stackalloc byte[4];
        BinaryPrimitives.WriteUInt32LittleEndian(data, value);
        _transport.Write(register, data);
    }

    private void SetUpProperly()
    {
        foreach (uint status in StatusOrder)
        {
            if (status == 0xb)
            {
                ulong features = _features == 0 ? 0 : _features & (ulong)_random.NextInt64();
                Write(MmioRegister.DriverFeaturesSel, 1);
                Write(MmioRegister.DriverFeatures, 1 | (uint)(features >> 32));
                Write(MmioRegister.DriverFeaturesSel, 0);
                Write(MmioRegister.DriverFeatures, (uint)features | (_random.Next(2) == 0 ? 0 : 1u << (28 + _random.Next(2))));
            }

            if (status == 0xf)
            {
                for (int queue = 0; queue < 4; queue++)
                {
                    SetUpQueue(queue);
                }
            }

            Write(MmioRegister.Status, status);
        }
    }

    private void SetUpQueue(int queue)
    {
        Write(MmioRegister.QueueSel, (uint)queue);
        Write(MmioRegister.QueueNum, 1u << _random.Next(2, 7));
        ulong table = _random.Next(16) == 0 ? (ulong)_random.NextInt64() : Table(queue);
        Write(MmioRegister.QueueDescLow, (uint)table);
        Write(MmioRegister.QueueDescHigh, (uint)(table >> 32));
        Write(MmioRegister.QueueDriverLow, (uint)table + 0x4000);
        Write(MmioRegister.QueueDriverHigh, (uint)(table >> 32));
        Write(MmioRegister.QueueDeviceLow, (uint)table + 0x8000);
        Write(MmioRegister.QueueDeviceHigh, (uint)(table >> 32));
        Write(MmioRegister.QueueReady, 1);
    }

    private void WriteRandomRegister()
    {
        Span<byte> data = stackalloc byte[1 << _random.Next(4)];
        _random.NextBytes(data);
        _transport.Write((ulong)_random.Next(_random.Next(2) == 0 ? 0x100 : (int)MmioRegister.WindowLength), data);
    }

    private void Kick()
    {
        int queue = _random.Next(4);
        if (_routing.IoEvents.TryGetValue((Base + MmioRegister.QueueNotify, (uint)queue), out EventFd? kick) && _random.Next(4) != 0)
        {
            kick.Signal();
        }
        else
        {
            Write(MmioRegister.QueueNotify, (uint)queue);
        }
    }

    /// <summary>Descriptors that loop, overlap, leave memory or nest, and an index that moves on or jumps.</summary>
    private void ScribbleRings()
    {
        int queue = _random.Next(4);
        Span<byte> descriptor = stackalloc byte[Descriptor.Size];
        for (int i = 0; i < 8; i++)
        {
            ulong address = _random.Next(8) switch
            {
                0 => (ulong)_random.NextInt64(long.MinValue, long.MaxValue),
                1 => MemorySize - (ulong)_random.Next(64),
                2 => Table(queue),
                _ => 0x8_0000 + (ulong)_random.Next(0x7_0000),
            };
            uint length = _random.Next(6) switch { 0 => uint.MaxValue, 1 => 0, 2 => (uint)_random.Next(1 << 20), _ => (uint)_random.Next(200) };
            BinaryPrimitives.WriteUInt64LittleEndian(descriptor, address);
            BinaryPrimitives.WriteUInt32LittleEndian(descriptor[8..], length);
            BinaryPrimitives.WriteUInt16LittleEndian(descriptor[12..], (ushort)_random.Next(_random.Next(4) == 0 ? 16 : 4));
            BinaryPrimitives.WriteUInt16LittleEndian(descriptor[14..], (ushort)_random.Next(_random.Next(8) == 0 ? 70 : 8));
            _memory.TryWrite(Table(queue) + (ulong)(i * Descriptor.Size), descriptor);
        }

        ulong available = Table(queue) + 0x4000;
        for (int i = 0; i < 8; i++)
        {
            _memory.TryWrite(available + 4 + (ulong)(2 * _random.Next(64)), (ushort)_random.Next(_random.Next(8) == 0 ? 65536 : 8));
        }

        _memory.TryRead(available + 2, out ushort index);
        _memory.TryWrite(available + 2, (ushort)(index + _random.Next(_random.Next(8) == 0 ? 65536 : 4)));
    }

    /// <summary>Small little-endian numbers pass for types, lengths, ids and opcodes of every protocol here.</summary>
    private void ScribbleData()
    {
        Span<byte> data = stackalloc byte[256];
        _random.NextBytes(data);
        for (int i = 0; i < data.Length; i += 4)
        {
            if (_random.Next(3) != 0)
            {
                BinaryPrimitives.WriteUInt32LittleEndian(data[i..], (uint)_random.Next(_random.Next(2) == 0 ? 64 : 5000));
            }
        }

        for (int i = 0; i < 16; i++)
        {
            _memory.TryWrite(0x8_0000 + (ulong)_random.Next(0x7_0000), data);
        }
    }
}
